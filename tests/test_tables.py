"""Tables from small verdict frames, with the numbers they must show."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from verdict_frames import SETTINGS, cell, curve, frame, one, row, search_table, study

from es2.errors import UserError
from es2.files import write_csv, write_json, write_jsonl
from es2.statistics import wilson
from es2.tables.ability import ability_table, chance_rows, sample_frame
from es2.tables.attack_cost import attack_cost_table
from es2.tables.dsr import dsr_table
from es2.tables.judges import judges_table
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
from es2.tables.searches import searches_table
from es2.tables.verdicts import RUN, Settings, listed, rate_interval, read_verdicts, who


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


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("rcdm", min_size=3, max_size=3), min_size=2, max_size=2))
def test_shares_add_up_to_one_whatever_the_verdicts(verdicts: list[str]) -> None:
    cells = frame(cell("sft", "rrr"), *(curve("sft", "adv", {float(i + 1): v}) for i, v in enumerate(verdicts)))
    table = dsr_table(cells, {"m": {"scav_adaptive": [0.5, 1.0, 1.5]}}, Settings(harmful=("adv",), resamples=20))
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
    budgets = {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}
    for make in (dsr_table, robustness_table, paired_table):
        assert "SECRET" not in make(cells, budgets, SETTINGS).to_csv()


def _ability(tmp_path: Path, twins: int = 1) -> pd.DataFrame:
    """Four prompts, of which `twins` at a time are near-twins."""
    drift, scored = [], []
    for run, shift in (("base", 0.0), ("sft", 1.0), ("es2", 2.0)):
        rows = [("perplexity", "plain", f"p{i}", 4 + i + shift) for i in range(4)]
        if run != "base":
            rows += [("kl_to_parent", "plain", f"p{i}", 0.0) for i in range(4)]
            rows += [("agreement_with_parent", "plain", f"p{i}", 0.5) for i in range(4)]
        drifted = pd.DataFrame(rows, columns=["task", "prompt_set", "prompt_id", "value"])
        write_csv(drifted.assign(cluster=drifted["prompt_id"].str[1:].astype(int) // twins), tmp_path / f"{run}.csv")
        samples = [{"doc_id": i, "correct": int(i < 2), "logprob_normalised": -1.0 - shift} for i in range(4)]
        write_json(tmp_path / f"{run}.json", {"tasks": {"mmlu": {"n": 4, "chance": 0.25, "samples": samples}}})
        drift.append((tmp_path / f"{run}.csv", row(run)))
        scored.append((tmp_path / f"{run}.json", row(run)))
    cells = frame(*(cell(run, v, "plain") for run, v in (("base", "cccc"), ("sft", "ccrm"), ("es2", "ccrr"))))
    return ability_table(sample_frame(drift, scored, cells, SETTINGS), chance_rows(scored), SETTINGS)


def test_drift_is_drawn_over_near_twins_together(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone, twins = (
        one(_ability(folder, each), run="base", task="perplexity")
        for folder, each in ((tmp_path / "alone", 1), (tmp_path, 2))
    )
    assert (alone["value"], twins["value"]) == (5.5, 5.5)
    assert (twins["low"], twins["high"]) == (4.5, 6.5)
    assert (alone["low"], alone["high"]) != (4.5, 6.5)


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
    searched = row("sft") | {"attack": "scav_adaptive", "values": chosen_settings(search_table())}
    table = settings_table([layers, searched, {"values": {"a": {"b": 0.1, "c": "text"}}}])
    assert dict(zip(table["key"], table["value"], strict=True)) == {
        "layers.layers": "[1, 2]", "chosen at budget 1": "a", "chosen at budget 2": "b", "a.b": "0.1", "a.c": "text",
    }  # fmt: skip
    assert list(table.columns) == [*RUN, "attack", "key", "value"]
    free = search_table().query("setting == 'b'").assign(budget=math.nan)
    assert chosen_settings(free) == {"chosen": "b"}
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
    write_jsonl(tmp_path / "a.jsonl", [{"n_tokens": 3, "control": ""}, {"n_tokens": 4, "control": "random"}])
    tokens = generated_tokens([tmp_path / "a.jsonl"], ["generate_answers/m/sft/s0/direct"])
    table = cost_table(tmp_path / "timings", [row("sft"), row("es2")], tokens)
    tuned = one(table, rule="finetune")
    assert tuned[[*RUN, "seconds", "peak_mb", "job"]].tolist() == [*row("es2").values(), 12.5, 900.5, "m/es2/s0/job"]
    fetched = one(table, rule="fetch_source")
    assert (fetched["run"], fetched["seconds"], math.isnan(fetched["peak_mb"])) == ("", 0.2, True)
    assert one(table, rule="generate_answers")["generated"] == 7
    with pytest.raises(UserError, match="no timings"):
        cost_table(tmp_path / "nowhere", [], {})


def test_a_job_that_runs_at_this_moment_has_no_cost_yet(tmp_path: Path) -> None:
    (tmp_path / "merge").mkdir()
    (tmp_path / "merge/done.tsv").write_text("s\th:m:s\tmax_rss\tcpu_time\n12.5\t0:00:12\t900.5\t20\n")
    (tmp_path / "merge/begun.tsv").write_text("")
    (tmp_path / "merge/gone.tsv").symlink_to("nowhere")
    assert cost_table(tmp_path, [], {})["job"].tolist() == ["done"]


def test_the_cost_of_an_attack_counts_its_search_and_its_answers(tmp_path: Path) -> None:
    (tmp_path / "job.tsv").write_text("s\th:m:s\tmax_rss\tcpu_time\n12.5\t0:00:12\t900.5\t20\n")
    write_jsonl(tmp_path / "a.jsonl", [{"n_tokens": 3, "control": ""}, {"n_tokens": 4, "control": "random"}])
    (tmp_path / "tried.csv").write_text("stage,setting,n\n1,a,12\n1,b,12\n2,a,60\n")
    (tmp_path / "none.csv").write_text("stage,setting,n\n")
    rows = [
        row("es2") | {"attack": "soft_prompt", "fitted_on": ["parent"]},
        row("es2") | {"attack": "direct", "fitted_on": []},
    ]
    files = [tmp_path / "a.jsonl"] * 2, [tmp_path / "tried.csv", tmp_path / "none.csv"], [tmp_path / "job.tsv", "gone"]
    table = attack_cost_table(rows, *files, {"soft_prompt": 3200})
    attacked, direct = table.to_dict("records")
    told = ["searched", "gradients", "answers", "generated", "seconds", "cpu_seconds", "peak_mb"]
    assert [attacked[name] for name in told] == [84, 3200, 2, 7, 12.5, 20, 900.5]
    assert [direct[name] for name in told[:3]] == [0, 0, 2]
    assert table["fitted_on"].tolist() == ["parent", ""]
    assert math.isnan(direct["seconds"])


def test_of_several_samples_the_one_kept_is_not_counted_again(tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("stage,setting,n\n")
    drawn = [{"n_tokens": tokens, "control": "single"} for tokens in (3, 4, 5)]
    write_jsonl(tmp_path / "a.jsonl", [{"n_tokens": 5, "control": ""}, *drawn])
    rows = [row("es2") | {"attack": "sampled", "fitted_on": []}]
    table = attack_cost_table(rows, [tmp_path / "a.jsonl"], [tmp_path / "none.csv"], ["gone"], {})
    assert table[["answers", "generated"]].to_numpy().tolist() == [[3, 12]]
    assert generated_tokens([tmp_path / "a.jsonl"], ["job"]) == {"job": {"generated": 12}}


def test_what_attackers_tried_is_listed_with_whose_it_is() -> None:
    tried = {"stage": [1, 2], "budget": [0.1, math.nan], "n": [12, 60], "chosen": [False, True]}
    tried |= {"refusal": [0.5, 0.25], "compliance": [0.5, 0.5], "degenerate": [0.0, 0.25]}
    searches = [pd.DataFrame(tried | {"setting": names, "more": 1}) for names in (["a", "b"], ["c", "d"])]
    rows = [
        row("es2") | {"attack": "addition", "fitted_on": ["base"]},
        row("sft") | {"attack": "prefill", "fitted_on": []},
    ]
    table = searches_table(rows, searches)
    assert table["setting"].tolist() == ["a", "b", "c", "d"]
    assert table["run"].tolist() == ["es2", "es2", "sft", "sft"]
    assert table["attack"].tolist() == ["addition"] * 2 + ["prefill"] * 2
    assert table["fitted_on"].tolist() == ["base"] * 2 + [""] * 2
    taken = table[table["chosen"]]
    assert (
        taken[["stage", "n", "refusal", "compliance", "degenerate"]].to_numpy().tolist()
        == [[2, 60, 0.25, 0.5, 0.25]] * 2
    )
    assert list(searches_table([], [])) == list(table)


def test_settings_of_params_take_plain_dicts() -> None:
    found = Settings.from_params({"harmful": ["a"], "pairs": [["x", "y"]], "primary": {"b": 1, "a": 2}, "other": 0})
    assert found == Settings(harmful=("a",), pairs=(("x", "y"),), primary=(("a", 2), ("b", 1)))


def test_a_second_judges_missing_verdicts_are_in_no_rate_and_in_no_other_judges() -> None:
    table = dsr_table(frame(cell("sft", "rrcc"), cell("sft", "rmmm", judge="rubric")), {}, SETTINGS)
    mine, other = (one(table, benchmark="adv", judge=judge) for judge in ("keyword", "rubric"))
    assert (mine["n"], mine["n_missing"], mine["dsr"]) == (4, 0, 0.5)
    assert (other["n"], other["n_missing"], other["dsr"], other["asr"]) == (4, 3, 1.0, 0.0)


def test_judges_are_compared_on_the_answers_that_both_could_read() -> None:
    first, second = "rrccdrm", "rcccdmc"
    parts = [cell("sft", first), cell("sft", second, judge="rubric"), cell("sft", "c", "plain")]
    parts += [cell("es2", "rr"), cell("es2", "mm", judge="rubric"), cell("sft", "r", attack="prefill", judge="rubric")]
    table = judges_table(frame(*parts))
    assert list(table.columns[:5]) == RUN
    found = one(table, run="sft")
    assert (found["judge_a"], found["judge_b"], found["attack"]) == ("keyword", "rubric", "direct")
    assert (found["n"], found["n_both"], found["n_missing_a"], found["n_missing_b"]) == (7, 4, 1, 1)
    assert found["agreement"] == pytest.approx(0.75)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(list("rrcc"), list("rccc")))
    assert found["kappa_low"] <= found["kappa"] <= found["kappa_high"]
    unread = one(table, run="es2")
    assert (unread["n"], unread["n_both"], unread["n_missing_b"]) == (2, 0, 2)
    assert np.isnan(unread[["agreement", "kappa", "kappa_low"]].astype(float)).all()
    assert judges_table(frame(cell("sft", "rc"))).empty
