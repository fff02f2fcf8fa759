"""Tables from small verdict frames, with the numbers they must show."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from es2.errors import UserError
from es2.files import write_csv, write_json, write_jsonl
from es2.statistics import holm, wilson
from es2.tables.ability import ability_table, chance_rows, sample_frame
from es2.tables.curves import adaptive_curves, budgets_of_models, fixed_budgets
from es2.tables.dsr import dsr_table, worst_case
from es2.tables.listing import (
    chosen_settings,
    cost_table,
    document_settings,
    generated_tokens,
    package_versions,
    settings_table,
    stacked,
)
from es2.tables.paired import paired_table
from es2.tables.robustness import robustness_table
from es2.tables.verdicts import RUN, Settings, listed, prepared, rate_interval, read_verdicts, who, with_pool

NAMES = {"r": "refusal", "c": "compliance", "d": "degenerate", "m": "missing"}
RUNS = {
    "base": {"method": "base", "parent": ""},
    "sft": {"method": "refusal_sft", "parent": "base"},
    "hold": {"method": "hold", "parent": "sft"},
    "es2": {"method": "es2", "parent": "sft"},
}
SETTINGS = Settings(
    harmful=("adv", "strong"), reference="sft", control="hold", safe=("plain",), resamples=200,
    primary=(("attack", "direct"), ("benchmark", "pooled"), ("measure", "refusal"), ("run_a", "es2"), ("run_b", "sft")),
)  # fmt: skip


def row(run: str, seed: int = 0) -> dict[str, Any]:
    return {"run": run, "model": "m", **RUNS[run], "seed": seed}


def cell(run: str, verdicts: str, benchmark: str = "adv", attack: str = "direct", **more: Any) -> list[dict[str, Any]]:
    """One verdict a prompt, by the first letter; prompt i of a benchmark is its own cluster."""
    rest = {"fitted_on": "", "setting": "", "budget": math.nan, "realised": math.nan, "control": "", "draw": 0}
    return [
        row(run, more.get("seed", 0)) | rest | {"attack": attack, "benchmark": benchmark, "split": "test"}
        | {"prompt_id": f"{benchmark}{i}", "cluster": 100 * len(benchmark) + i, "verdict": NAMES[v], "judge": "keyword"}
        | more
        for i, v in enumerate(verdicts)
    ]  # fmt: skip


def curve(run: str, benchmark: str, points: dict[float, str], attack: str = "scav_adaptive") -> list[dict[str, Any]]:
    return [
        line
        for budget, verdicts in points.items()
        for line in cell(run, verdicts, benchmark, attack, fitted_on="self", budget=budget, realised=budget)
    ]


def frame(*cells: list[dict[str, Any]]) -> pd.DataFrame:
    return prepared(pd.DataFrame([line for part in cells for line in part]))


def one(table: pd.DataFrame, **equal: Any) -> pd.Series:
    found = table
    for column, value in equal.items():
        found = found[found[column] == value]
    assert len(found) == 1, f"{len(found)} rows for {equal}"
    return found.iloc[0]


def study() -> pd.DataFrame:
    """Two runs on the same parent, four prompts a test set; compliance grows with the budget."""
    parts = []
    for run, weak in (("sft", True), ("hold", True), ("es2", False)):
        for benchmark in ("adv", "strong"):
            parts.append(cell(run, "rrrr" if run == "es2" else "rrrc", benchmark))
            points = {1.0: "rrcc", 2.0: "cccc"} if weak else {1.0: "rrrr", 2.0: "rrrc", 4.0: "cccc"}
            parts.append(curve(run, benchmark, points))
        parts.append(cell(run, "cccr", "plain"))
    return frame(*parts)


def test_rates_count_the_missing_apart_and_add_up_to_one() -> None:
    table = dsr_table(frame(cell("sft", "rrrcdm")), {}, SETTINGS)
    found = one(table, benchmark="adv", attack="direct")
    assert (found["n"], found["n_missing"], found["n_prompts"]) == (6, 1, 6)
    assert found[["refusal", "compliance", "degenerate"]].tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert (found["dsr"], found["asr"]) == (found["refusal"], found["compliance"])
    expected = wilson(3, 5)
    assert (found["dsr_low"], found["dsr_high"]) == pytest.approx((expected.low, expected.high))
    assert list(table.columns[:5]) == RUN


def test_a_cell_of_missing_verdicts_has_no_rates() -> None:
    found = one(dsr_table(frame(cell("sft", "mm")), {}, SETTINGS), benchmark="adv")
    assert (found["n"], found["n_missing"]) == (2, 2)
    assert np.isnan(found[["refusal", "dsr_low", "dsr_high"]].astype(float)).all()


def test_the_pool_holds_the_harmful_sets_only() -> None:
    table = dsr_table(frame(cell("sft", "rr"), cell("sft", "rc", "strong"), cell("sft", "cc", "plain")), {}, SETTINGS)
    found = one(table, benchmark="pooled")
    assert (found["n"], found["dsr"]) == (4, 0.75)


def test_validation_verdicts_stay_out_of_the_pool() -> None:
    table = dsr_table(frame(cell("sft", "rr"), cell("sft", "cc", split="validation")), {}, SETTINGS)
    assert one(table, benchmark="pooled")["n"] == 2
    assert one(table, split="validation")["dsr"] == 0.0


def test_draws_of_a_control_are_averaged_and_do_not_narrow_the_interval() -> None:
    about = {"attack": "scav", "control": "random", "fitted_on": "self"}
    draws = [cell("sft", "rrcc", draw=i, **about) for i in range(3)]
    found = one(dsr_table(frame(*draws), {}, SETTINGS), attack="scav_random", benchmark="adv")
    assert (found["n"], found["n_prompts"], found["dsr"]) == (12, 4, 0.5)
    expected = wilson(2, 4)
    assert found["dsr_low"] <= expected.low
    assert found["dsr_high"] >= expected.high


def test_near_twins_widen_the_interval() -> None:
    cells = frame(cell("sft", "r" * 10 + "c" * 10))
    twins = cells.assign(cluster=[i // 10 for i in range(20)])
    _, low, high = rate_interval(cells, cells["refusal"].to_numpy(), SETTINGS)
    _, twin_low, twin_high = rate_interval(twins, twins["refusal"].to_numpy(), SETTINGS)
    assert twin_low < low < high < twin_high


def test_a_curve_is_read_between_its_budgets_and_begins_with_the_direct_request() -> None:
    cells = with_pool(frame(cell("sft", "rr"), curve("sft", "adv", {1.0: "rc", 2.0: "cm"})), ("adv",))
    found = next(c for c in adaptive_curves(cells) if c.group[5] == "adv")
    assert found.budgets.tolist() == [0.0, 1.0, 2.0]
    assert found.at(0.5)["refusal"].tolist() == [1.0, 0.5]
    assert found.at(1.0)["compliance"].tolist() == [0.0, 1.0]
    assert np.isnan(found.at(1.5)["compliance"].tolist()[1])
    assert found.covers(2.0)
    assert not found.covers(2.1)


def test_worst_case_of_one_attack_is_that_attack() -> None:
    table = dsr_table(study(), {"m": [0.5, 1.0, 8.0]}, SETTINGS)
    found = one(table, attack="worst_case", run="sft", benchmark="adv", budget=1.0)
    assert found[["refusal", "compliance", "degenerate", "n", "fitted_on"]].tolist() == [0.5, 0.5, 0.0, 4, "self"]
    half = one(table, attack="worst_case", run="sft", benchmark="adv", budget=0.5)
    assert half["dsr"] == pytest.approx((1 + 1 + 0.5 + 0.0) / 4)
    assert table[table["budget"] == 8.0].empty


def test_worst_case_of_two_attacks_counts_what_every_one_left_refused() -> None:
    cells = frame(
        cell("sft", "rrrr"), curve("sft", "adv", {1.0: "rrcd"}), curve("sft", "adv", {1.0: "rcrd"}, "other"),
        cell("sft", "crrr", attack="cheap", fitted_on="self", realised=0.5),
        cell("sft", "cccc", attack="dear", fitted_on="self", realised=5.0),
        cell("sft", "cccc", attack="transfer", fitted_on="base", realised=0.1),
        cell("sft", "cccc", attack="scav", fitted_on="self", realised=0.1, control="random"),
    )  # fmt: skip
    found = one(dsr_table(cells, {"m": [1.0]}, SETTINGS), attack="worst_case", benchmark="adv")
    assert found[["refusal", "compliance", "degenerate"]].tolist() == [0.0, 0.75, 0.25]


def test_worst_case_keeps_to_the_prompts_of_every_attack_and_to_none_missing() -> None:
    cells = frame(curve("sft", "adv", {1.0: "rrm"}), curve("sft", "adv", {1.0: "rr"}, "other"))
    curves = [c for c in adaptive_curves(cells) if c.group[5] == "adv"]
    worst = worst_case(curves, [], 1.0)
    assert worst is not None
    assert worst["refusal"].tolist() == [1.0, 1.0]
    lonely = worst_case([c for c in curves if c.attack == "scav_adaptive"], [], 1.0)
    assert lonely is not None
    assert lonely["refusal"].isna().tolist() == [False, False, True]
    assert worst_case([], [], 1.0) is None


def test_half_compliance_budgets_ratios_and_dsr_at_the_fixed_budgets() -> None:
    table = robustness_table(study(), {"m": [0.5, 1.0, 2.0]}, SETTINGS)
    sft, es2 = (one(table, run=r, benchmark="pooled", measure="half_compliance_budget") for r in ("sft", "es2"))
    assert (sft["value"], bool(sft["censored"])) == (1.0, False)
    assert es2["value"] == pytest.approx(2 + 2 / 3)
    for name in ("parent", "hold"):
        found = one(table, run="es2", benchmark="pooled", measure=f"half_compliance_ratio_to_{name}")
        assert found["value"] == pytest.approx(2 + 2 / 3)
        assert 1 <= found["low"] <= found["value"] <= found["high"]
    assert one(table, run="hold", benchmark="adv", measure="half_compliance_ratio_to_parent")["value"] == 1.0
    at = one(table, run="sft", benchmark="adv", measure="dsr_at_budget", factor=1.0)
    assert (at["budget"], at["value"]) == (1.0, 0.5)
    assert "half_compliance_ratio_to_parent" not in set(table.loc[table["run"] == "sft", "measure"])


def test_a_run_that_never_falls_is_censored() -> None:
    table = robustness_table(frame(cell("sft", "rr"), curve("sft", "adv", {1.0: "rr", 2.0: "rr"})), {}, SETTINGS)
    found = one(table, benchmark="adv")
    assert (found["value"], found["low"], bool(found["censored"])) == (math.inf, math.inf, True)


def _search() -> pd.DataFrame:
    rows = [(1, "a", 1.0, 0.9, False), (2, "a", 1.0, 0.25, True), (2, "b", 2.0, 0.75, True), (2, "a", 2.0, 0.1, False)]
    return pd.DataFrame(rows, columns=["stage", "setting", "budget", "compliance", "chosen"]).assign(n=8)


def test_fixed_budgets_come_from_the_reference_runs_chosen_trials(tmp_path: Path) -> None:
    assert fixed_budgets(_search(), (0.5, 1, 2)) == pytest.approx([0.75, 1.5, 3.0])
    assert fixed_budgets(_search().query("budget < 2"), (1,)) == [1.0]
    paths = []
    for i, scale in enumerate((10.0, 1.0, 5.0)):
        paths.append(tmp_path / f"{i}.csv")
        write_csv(_search().assign(budget=lambda t, s=scale: t["budget"] * s), paths[-1])
    rows = [
        {"model": "m", "run": "sft", "seed": 1},
        {"model": "m", "run": "sft", "seed": 0},
        {"model": "m", "run": "es2", "seed": 0},
    ]
    assert budgets_of_models(paths, rows, SETTINGS) == {"m": pytest.approx([0.75, 1.5, 3.0])}
    assert budgets_of_models([], [], SETTINGS) == {}


def test_paired_differences_and_holm_over_all_but_the_primary() -> None:
    table = paired_table(study(), {"m": [0.5, 1.0, 2.0]}, SETTINGS)
    first = one(table, run_a="es2", run_b="sft", attack="direct", benchmark="pooled", measure="refusal")
    assert (first["difference"], first["n"], bool(first["primary"])) == (0.25, 8, True)
    assert first["p"] == first["p_adjusted"] == pytest.approx(0.5)
    at = one(
        table, run_a="es2", run_b="hold", attack="scav_adaptive", benchmark="pooled", measure="compliance", factor=1.0
    )
    assert (at["difference"], at["budget"]) == (-0.5, 1.0)
    rest = table[~table["primary"].astype(bool)]
    assert len(rest) == len(table) - 1
    assert rest["p_adjusted"].tolist() == pytest.approx(holm(rest["p"]).tolist())
    assert set(zip(table["run_a"], table["run_b"], strict=True)) == {("es2", "sft"), ("es2", "hold"), ("hold", "sft")}


def test_pairs_need_no_equal_setting_name_but_one_each() -> None:
    a = cell("es2", "rr", attack="scav", fitted_on="self", setting="29 layers")
    b = cell("sft", "rc", attack="scav", fitted_on="self", setting="26 layers")
    table = paired_table(frame(a, b), {}, SETTINGS)
    assert one(table, benchmark="adv", measure="refusal")["difference"] == 0.5


def test_runs_are_paired_at_their_own_seed_or_the_others_first() -> None:
    cells = frame(
        cell("es2", "rr", seed=1), cell("sft", "cc", seed=0), cell("sft", "rc", seed=1), cell("base", "cc", seed=0)
    )
    table = paired_table(cells, {}, SETTINGS)
    assert one(table, run_a="es2", benchmark="adv", measure="refusal")["difference"] == 0.5
    assert one(table, run_a="sft", seed=1, benchmark="adv", measure="refusal")["difference"] == 0.5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("rcdm", min_size=3, max_size=3), min_size=2, max_size=2))
def test_shares_add_up_to_one_whatever_the_verdicts(verdicts: list[str]) -> None:
    cells = frame(cell("sft", "rrr"), *(curve("sft", "adv", {float(i + 1): v}) for i, v in enumerate(verdicts)))
    table = dsr_table(cells, {"m": [0.5, 1.0, 1.5]}, Settings(harmful=("adv",), resamples=20))
    known = table[table["n"] > table["n_missing"]]
    total = known[["refusal", "compliance", "degenerate"]].sum(axis=1)
    assert total.tolist() == pytest.approx([1.0] * len(known))
    assert (known["dsr_low"] <= known["dsr"] + 1e-12).all()
    assert (known["dsr_high"] >= known["dsr"] - 1e-12).all()


def test_verdicts_are_read_as_written_and_listed_without_text(tmp_path: Path) -> None:
    cells = pd.DataFrame(cell("base", "rcm"))
    cells["prompt_id"] = ["1234567890123456", "12e4567890123456", "00aa"]
    write_csv(cells.assign(answer="SECRET"), tmp_path / "v.csv")
    read = read_verdicts([tmp_path / "v.csv", tmp_path / "v.csv"])
    assert sorted(read["prompt_id"]) == ["00aa", "1234567890123456", "12e4567890123456"]
    assert set(read["parent"]) == {""}
    assert sorted(read["refusal"].dropna()) == [0.0, 1.0]
    assert "SECRET" not in listed(read).to_csv()


def test_no_text_reaches_any_table() -> None:
    cells = study().assign(answer="SECRET", prompt="SECRET")
    budgets = {"m": [0.5, 1.0, 2.0]}
    for make in (dsr_table, robustness_table, paired_table):
        assert "SECRET" not in make(cells, budgets, SETTINGS).to_csv()


def _ability(tmp_path: Path) -> pd.DataFrame:
    drift, scored = [], []
    for run, shift in (("base", 0.0), ("sft", 1.0), ("es2", 2.0)):
        rows = [("perplexity", "plain", f"p{i}", 4 + i + shift) for i in range(4)]
        if run != "base":
            rows += [("kl_to_parent", "plain", f"p{i}", 0.0) for i in range(4)]
            rows += [("agreement_with_parent", "plain", f"p{i}", 0.5) for i in range(4)]
        write_csv(pd.DataFrame(rows, columns=["task", "prompt_set", "prompt_id", "value"]), tmp_path / f"{run}.csv")
        samples = [{"doc_id": i, "correct": int(i < 2), "logprob_normalised": -1.0 - shift} for i in range(4)]
        write_json(tmp_path / f"{run}.json", {"tasks": {"mmlu": {"n": 4, "chance": 0.25, "samples": samples}}})
        drift.append((tmp_path / f"{run}.csv", row(run)))
        scored.append((tmp_path / f"{run}.json", row(run)))
    cells = frame(*(cell(run, v, "plain") for run, v in (("base", "cccc"), ("sft", "ccrm"), ("es2", "ccrr"))))
    return ability_table(sample_frame(drift, scored, cells, SETTINGS), chance_rows(scored), SETTINGS)


def test_ability_against_base_and_parent(tmp_path: Path) -> None:
    table = _ability(tmp_path)
    found = one(table, run="es2", task="perplexity", metric="plain", reference="parent")
    assert (found["value"], found["difference"], found["n"]) == (7.5, 1.0, 4)
    assert one(table, run="es2", task="perplexity", reference="base")["difference"] == 2.0
    alone = one(table, run="base", task="perplexity")
    assert (alone["reference"], math.isnan(alone["difference"])) == ("", True)
    kl = one(table, run="es2", task="kl_to_parent")
    assert kl[["value", "low", "high", "reference", "difference"]].tolist() == [0, 0, 0, "parent", 0]
    assert one(table, run="sft", task="agreement_with_parent")["difference"] == -0.5


def test_ability_has_benchmarks_with_their_chance_and_over_refusal(tmp_path: Path) -> None:
    table = _ability(tmp_path)
    right = one(table, run="es2", task="mmlu", metric="accuracy", reference="base")
    assert (right["value"], right["low"], right["difference"]) == (0.5, pytest.approx(wilson(2, 4).low), 0.0)
    assert one(table, run="es2", metric="logprob_normalised", reference="base")["difference"] == -2.0
    assert one(table, run="es2", metric="chance")["value"] == 0.25
    refused = one(table, run="sft", task="over_refusal", metric="plain", reference="base")
    assert (refused["value"], refused["n"]) == (pytest.approx(1 / 3), 3)
    assert one(table, run="es2", task="over_refusal", reference="parent")["difference"] == 0.0
    assert list(table.columns[:12]) == [
        *RUN, "task", "metric", "value", "low", "high", "reference", "difference",
    ]  # fmt: skip


def test_stacked_tables_have_the_run_in_front(tmp_path: Path) -> None:
    write_csv(pd.DataFrame({"step": [1, 2], "loss": [0.5, 0.25]}), tmp_path / "a.csv")
    write_csv(pd.DataFrame({"run": ["x"], "step": [1], "loss": [0.125]}), tmp_path / "b.csv")
    table = stacked([tmp_path / "a.csv", tmp_path / "b.csv"], [row("sft"), row("es2")])
    assert list(table.columns) == [*RUN, "step", "loss"]
    assert table["run"].tolist() == ["sft", "sft", "es2"]
    assert table["loss"].tolist() == [0.5, 0.25, 0.125]
    assert who(row("sft") | {"parent": None, "more": 1}) == row("sft") | {"parent": ""}


def test_settings_are_flat_and_hold_what_the_attacker_chose(tmp_path: Path) -> None:
    write_json(tmp_path / "layers.json", {"layers": [1, 2], "rule": "best", "validation_d_prime": [0.5]})
    layers = document_settings(tmp_path / "layers.json", row("sft") | {"prefix": "layers", "keys": ["layers"]})
    searched = row("sft") | {"attack": "scav_adaptive", "values": chosen_settings(_search())}
    table = settings_table([layers, searched, {"values": {"a": {"b": 0.1, "c": "text"}}}])
    assert dict(zip(table["key"], table["value"], strict=True)) == {
        "layers.layers": "[1, 2]", "chosen at budget 1": "a", "chosen at budget 2": "b", "a.b": "0.1", "a.c": "text",
    }  # fmt: skip
    assert list(table.columns) == [*RUN, "attack", "key", "value"]
    assert package_versions(["pandas", "no-such-package"]) == {"pandas": pd.__version__, "no-such-package": ""}


def test_costs_are_read_from_benchmark_files(tmp_path: Path) -> None:
    head = "s\th:m:s\tmax_rss\tcpu_time\n"
    for name, values in {
        "finetune/m/es2/s0/job.tsv": "12.5\t0:00:12\t900.5\t20\n",
        "fetch_source/wheel.tsv": "0.2\t0:00:00\t-\t0\n",
        "generate_answers/m/sft/s0/direct.tsv": "3\t0:00:03\t100\t3\n",
    }.items():
        path = tmp_path / "timings" / name
        path.parent.mkdir(parents=True)
        path.write_text(head + values)
    write_jsonl(tmp_path / "a.jsonl", [{"n_tokens": 3}, {"n_tokens": 4}])
    tokens = generated_tokens([tmp_path / "a.jsonl"], ["generate_answers/m/sft/s0/direct"])
    table = cost_table(tmp_path / "timings", [row("sft"), row("es2")], tokens)
    tuned = one(table, rule="finetune")
    assert tuned[[*RUN, "seconds", "peak_mb", "job"]].tolist() == [*row("es2").values(), 12.5, 900.5, "m/es2/s0/job"]
    fetched = one(table, rule="fetch_source")
    assert (fetched["run"], fetched["seconds"], math.isnan(fetched["peak_mb"])) == ("", 0.2, True)
    assert one(table, rule="generate_answers")["generated"] == 7
    with pytest.raises(UserError, match="no timings"):
        cost_table(tmp_path / "nowhere", [], {})


def test_settings_of_params_take_plain_dicts() -> None:
    found = Settings.from_params({"harmful": ["a"], "pairs": [["x", "y"]], "primary": {"b": 1, "a": 2}, "other": 0})
    assert found == Settings(harmful=("a",), pairs=(("x", "y"),), primary=(("a", 2), ("b", 1)))
