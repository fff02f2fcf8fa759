"""Robustness curves, worst cases and paired differences, from small verdict frames."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from verdict_frames import SETTINGS, cell, curve, frame, one, search_table, study

from es2.files import write_csv
from es2.statistics import holm, wilson
from es2.tables.curves import adaptive_curves, budgets_of_models, fixed_budgets
from es2.tables.dsr import dsr_table
from es2.tables.paired import paired_table
from es2.tables.robustness import robustness_table
from es2.tables.verdicts import with_pool
from es2.tables.worst import worst_case


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
    table = dsr_table(study(), {"m": {"scav_adaptive": [0.5, 1.0, 8.0]}}, SETTINGS)
    found = one(table, attack="worst_case", run="sft", benchmark="adv", factor=1.0)
    assert found[["refusal", "compliance", "degenerate", "n", "fitted_on"]].tolist() == [0.5, 0.5, 0.0, 4, "self"]
    half = one(table, attack="worst_case", run="sft", benchmark="adv", factor=0.5)
    assert half["dsr"] == pytest.approx((1 + 1 + 0.5 + 0.0) / 4)
    beyond = one(table, attack="worst_case", run="sft", benchmark="adv", factor=2.0)
    assert beyond["dsr"] == one(table, attack="scav_adaptive", run="sft", benchmark="adv", budget=2.0)["dsr"]


def test_worst_case_of_two_attacks_counts_what_every_one_left_refused() -> None:
    cells = frame(
        cell("sft", "rrrr"), curve("sft", "adv", {1.0: "rrcd"}), curve("sft", "adv", {1.0: "rcrd"}, "other"),
        cell("sft", "crrr", attack="free", fitted_on="self"),
        cell("sft", "cccc", attack="transfer", fitted_on="base"),
        cell("sft", "cccc", attack="scav", fitted_on="self", control="random"),
    )  # fmt: skip
    budgets = {"m": {"scav_adaptive": [1.0], "other": [1.0]}}
    table = dsr_table(cells, budgets, replace(SETTINGS, factors=(1.0,)))
    found = one(table, attack="worst_case", benchmark="adv")
    assert found[["refusal", "compliance", "degenerate"]].tolist() == [0.25, 0.5, 0.25]
    found = one(table, attack="worst_case_all", benchmark="adv")
    assert found[["refusal", "compliance", "degenerate"]].tolist() == [0.0, 0.75, 0.25]


def test_an_attack_that_was_fitted_on_another_model_is_no_part_of_the_worst_case() -> None:
    """It has a curve and differences of its own, at the same budgets."""
    own = [
        cell("sft", "rrrr"),
        curve("sft", "adv", {1.0: "rrcd"}),
        cell("es2", "rrrr"),
        curve("es2", "adv", {1.0: "rrrr"}),
    ]
    other = [{**line, "fitted_on": "base"} for line in curve("sft", "adv", {1.0: "cccc"})]
    budgets = {"m": {"scav_adaptive": [1.0]}}
    settings = replace(SETTINGS, factors=(1.0,))
    alone, both = (dsr_table(frame(*parts), budgets, settings) for parts in (own, [*own, other]))
    worst = [one(table, attack="worst_case", run="sft", benchmark="adv")["dsr"] for table in (alone, both)]
    assert worst == [0.5, 0.5]
    found = one(both, attack="scav_adaptive", fitted_on="base", benchmark="adv")
    assert found["asr"] == 1.0
    fixed = robustness_table(frame(*own, other), budgets, settings)
    assert one(fixed, run="sft", fitted_on="base", benchmark="adv", measure="dsr_at_budget")["value"] == 0.0
    paired = paired_table(frame(*own, other), budgets, settings)
    assert set(paired.loc[paired["attack"] == "scav_adaptive", "fitted_on"]) == {"self"}


def test_ratios_have_p_values_adjusted_over_all_of_them() -> None:
    n = 64
    parts = [cell(run, "r" * n) for run in ("sft", "hold", "es2")]
    parts += [curve(run, "adv", {1.0: "c" * n}) for run in ("sft", "hold")]
    parts += [curve("es2", "adv", {1.0: "r" * n, 2.0: "c" * n})]
    table = robustness_table(frame(*parts), {}, SETTINGS)
    table = table[table["benchmark"] == "adv"].set_index(["run", "measure"])
    ratios = table[table.index.get_level_values("measure").str.startswith("half_compliance_ratio")]
    parent, hold = "half_compliance_ratio_to_parent", "half_compliance_ratio_to_hold"
    assert set(ratios.index) == {("es2", parent), ("es2", hold), ("hold", parent)}  # its parent's to hold is the same
    assert ratios.loc[("hold", parent), "p"] == 1.0
    assert (ratios.loc["es2", "p"] < 1e-4).all()
    assert (ratios["p_adjusted"] >= ratios["p"]).all()
    assert (ratios.loc["es2", "p_adjusted"] < 1e-2).all()
    assert table.drop(ratios.index)["p"].isna().all()


def test_a_worst_case_below_all_that_was_tested_is_not_told() -> None:
    """Without the direct request a curve does not begin at 0."""
    cells = frame(curve("sft", "adv", {1.0: "rrcd", 2.0: "rccc"}))
    table = dsr_table(cells, {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}, SETTINGS)
    told = table[(table["attack"] == "worst_case") & (table["benchmark"] == "adv")]
    assert dict(zip(told["factor"], told["dsr"], strict=True)) == {1.0: 0.5, 2.0: 0.25}


def test_each_attack_counts_at_its_own_budgets() -> None:
    attacks = [curve("sft", "adv", {1.0: "rrcc"}), curve("sft", "adv", {0.1: "crrr", 0.2: "cccc"}, "other")]
    table = dsr_table(
        frame(cell("sft", "rrrr"), *attacks), {"m": {"scav_adaptive": [1.0], "other": [0.1]}},
        replace(SETTINGS, factors=(1.0,)),
    )  # fmt: skip
    assert one(table, attack="worst_case", benchmark="adv")["dsr"] == 0.25
    fixed = robustness_table(
        frame(cell("sft", "rrrr"), *attacks), {"m": {"scav_adaptive": [1.0], "other": [0.1]}}, SETTINGS
    )
    told = fixed[(fixed["measure"] == "dsr_at_budget") & (fixed["benchmark"] == "adv")]
    assert dict(zip(told["attack"], told["value"], strict=True)) == {"scav_adaptive": 0.5, "other": 0.75}


def test_what_an_attack_does_to_harmless_prompts_is_no_curve() -> None:
    about = {"attack": "scav_adaptive", "fitted_on": "self", "budget": 1.0}
    cells = frame(cell("sft", "rr"), curve("sft", "adv", {1.0: "rc"}), cell("sft", "cd", benchmark="plain", **about))
    budgets = {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}
    assert "plain" not in set(robustness_table(cells, budgets, SETTINGS)["benchmark"])
    assert "plain" not in set(paired_table(cells, budgets, SETTINGS)["benchmark"])
    table = dsr_table(cells, budgets, SETTINGS)
    assert one(table, attack="scav_adaptive", benchmark="plain")["degenerate"] == 0.5
    assert "plain" not in set(table.loc[table["attack"] == "worst_case", "benchmark"])


def test_worst_case_keeps_to_the_prompts_of_every_attack_and_to_none_missing() -> None:
    cells = frame(curve("sft", "adv", {1.0: "rrm"}), curve("sft", "adv", {1.0: "rr"}, "other"))
    curves = [c for c in adaptive_curves(cells) if c.group[5] == "adv"]
    worst = worst_case([c.at(1.0) for c in curves])
    assert worst is not None
    assert worst["refusal"].tolist() == [1.0, 1.0]
    lonely = worst_case([c.at(1.0) for c in curves if c.attack == "scav_adaptive"])
    assert lonely is not None
    assert lonely["refusal"].isna().tolist() == [False, False, True]
    assert worst_case([]) is None


def test_half_compliance_budgets_ratios_and_dsr_at_the_fixed_budgets() -> None:
    table = robustness_table(study(), {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}, SETTINGS)
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
    none = one(table, run="sft", benchmark="adv", measure="dsr_at_budget", factor=2.0)
    least = wilson(0, 4)
    assert (none["value"], none["low"], none["high"]) == (0.0, least.low, least.high)
    assert "half_compliance_ratio_to_parent" not in set(table.loc[table["run"] == "sft", "measure"])


def test_runs_set_against_each_other_have_their_ratio() -> None:
    budgets = {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}
    cells = frame(
        *(cell(run, "rrrr") for run in ("sft", "es2", "rival")),
        curve("sft", "adv", {1.0: "rccc", 2.0: "cccc"}),
        curve("es2", "adv", {1.0: "rrrr", 2.0: "cccc"}),
        curve("rival", "adv", {1.0: "rrcc", 2.0: "cccc"}),
    )  # fmt: skip
    table = robustness_table(
        cells, budgets, replace(SETTINGS, pairs=(("es2", "rival"), ("es2", "sft"), ("es2", "none")))
    )
    ratios = table[table["measure"].str.startswith("half_compliance_ratio") & (table["benchmark"] == "adv")]
    assert dict(zip(ratios["run"] + ratios["measure"].str[24:], ratios["value"], strict=True)) == {
        "es2_parent": pytest.approx(1.5 / (2 / 3)), "es2_rival": pytest.approx(1.5), "rival_parent": pytest.approx(1.5),
    }  # fmt: skip


def test_a_run_that_never_falls_is_censored() -> None:
    table = robustness_table(frame(cell("sft", "rr"), curve("sft", "adv", {1.0: "rr", 2.0: "rr"})), {}, SETTINGS)
    found = one(table, benchmark="adv")
    assert (found["value"], found["low"], bool(found["censored"])) == (math.inf, math.inf, True)


def test_fixed_budgets_come_from_the_reference_runs_chosen_trials(tmp_path: Path) -> None:
    assert fixed_budgets(search_table(), (0.5, 1, 2)) == pytest.approx([0.75, 1.5, 3.0])
    assert fixed_budgets(search_table().query("budget < 2"), (1,)) == [1.0]
    paths = []
    for i, scale in enumerate((10.0, 1.0, 5.0)):
        paths.append(tmp_path / f"{i}.csv")
        write_csv(search_table().assign(budget=lambda t, s=scale: t["budget"] * s), paths[-1])
    rows = [
        {"model": "m", "run": "sft", "seed": 1, "attack": "scav_adaptive"},
        {"model": "m", "run": "sft", "seed": 0, "attack": "scav_adaptive"},
        {"model": "m", "run": "es2", "seed": 0, "attack": "scav_adaptive"},
    ]
    assert budgets_of_models(paths, rows, SETTINGS) == {"m": {"scav_adaptive": pytest.approx([0.75, 1.5, 3.0])}}
    assert budgets_of_models([], [], SETTINGS) == {}


def test_paired_differences_and_holm_over_all_but_the_primary() -> None:
    table = paired_table(study(), {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}, SETTINGS)
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


def test_the_worst_case_is_compared_prompt_by_prompt() -> None:
    cells = frame(
        *(cell(run, "rrrr") for run in ("es2", "sft")),
        curve("es2", "adv", {1.0: "rrrc"}), curve("es2", "adv", {1.0: "rrcr"}, attack="addition"),
        curve("sft", "adv", {1.0: "rccc"}), curve("sft", "adv", {1.0: "crcc"}, attack="addition"),
    )  # fmt: skip
    budgets = {"m": {"scav_adaptive": [1.0], "addition": [1.0]}}
    table = paired_table(cells, budgets, replace(SETTINGS, factors=(1.0,)))
    found = one(table, run_a="es2", run_b="sft", attack="worst_case", benchmark="adv", measure="refusal")
    assert (found["difference"], found["n"], found["factor"]) == (0.5, 4, 1.0)
    complied = one(table, run_a="es2", run_b="sft", attack="worst_case", benchmark="adv", measure="compliance")
    assert complied["difference"] == 0.5 - 1.0


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
