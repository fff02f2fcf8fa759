"""Runs set against each other: the selection from the study's tables, what a reader is shown, and the figure."""

import math
from dataclasses import replace
from functools import cache

import matplotlib.colors
import pandas as pd
import pytest
from verdict_frames import SETTINGS, cell, curve, frame, one

from es2.plots.forest import forest_figure
from es2.plots.rivals import rivals_figure
from es2.reporting import Study
from es2.tables.paired import paired_table
from es2.tables.rivals import rivals_table, shown_rivals
from es2.tables.robustness import robustness_table

PAIRS = (("es2", "rival"), ("es2", "hold"))
STUDY = Study(
    model="m", runs=("sft", "hold", "es2", "rival"), parent="sft", harmful=("adv",), look_dangerous="looking",
    pairs=(*PAIRS, ("es2", "absent")), labels={"es2": "ES2", "rival": "a rival"},
)  # fmt: skip
N = 64
REFUSED = {"sft": 8, "hold": 8, "es2": N, "rival": 16}
"""Of `N` prompts, those that a run refuses at budget 1."""


@cache
def rivals(pairs: tuple[tuple[str, str], ...] = PAIRS) -> pd.DataFrame:
    """ES2 refuses all at the reference's budget and falls between the two budgets; the rival falls before the first."""
    parts = []
    for run, refused in REFUSED.items():
        at_one = "r" * refused + "c" * (N - refused)
        parts += [cell(run, "r" * N), curve(run, "adv", {1.0: at_one, 2.0: "c" * N})]
        parts += [cell(run, ("r" if run == "es2" else "c") * N, attack="ablation", fitted_on="self")]
        parts += [
            cell(run, "r" * N, attack="scav", fitted_on="base"),
            cell(run, "rc" * (N // 2), attack="ablation", control="random"),
        ]
        parts += [cell(run, "c" * N, "plain"), cell(run, "rcc" + "c" * (N - 3) if run == "es2" else "c" * N, "looking")]
    settings = replace(SETTINGS, harmful=("adv",), safe=("plain", "looking"), pairs=tuple(pairs), factors=(0.5, 1.0))
    verdicts, budgets = frame(*parts), {"m": {"scav_adaptive": [0.5, 1.0]}}
    return rivals_table(paired_table(verdicts, budgets, settings), robustness_table(verdicts, budgets, settings), STUDY)


def test_a_pair_is_told_under_each_attack_at_the_references_budget() -> None:
    table = rivals()
    assert list(dict.fromkeys(zip(table["run_a"], table["run_b"], strict=True))) == list(PAIRS)
    mine = table[table["run_b"] == "rival"]
    told = {(row.measure, row.attack): row.value for row in mine.itertuples()}
    assert told == {
        ("half_compliance_ratio", "scav_adaptive"): pytest.approx(1.5 / (2 / 3)),
        ("dsr", "direct"): 0.0,
        ("dsr", "ablation"): 1.0,
        ("dsr", "scav_adaptive"): 0.75,
        ("robust_dsr", "worst_case"): 0.75,
        ("robust_dsr", "worst_case_all"): 1.0,
        ("asr", "direct"): 0.0,
        ("asr", "ablation"): -1.0,
        ("asr", "scav_adaptive"): -0.75,
        ("asr", "worst_case"): -0.75,
        ("asr", "worst_case_all"): -1.0,
        ("plain_refused", ""): 0.0,
        ("look_dangerous_refused", ""): pytest.approx(1 / N),
    }
    assert set(mine["run"]) == {"es2"}
    assert one(mine, measure="dsr", attack="ablation")["p_adjusted"] <= 0.05
    ratio = one(mine, measure="half_compliance_ratio")
    assert ratio["p_adjusted"] <= 0.05
    assert ratio["claimed"]


def test_refusals_alone_are_no_claim() -> None:
    """What one run refuses more, the other answers degenerately: nothing is gained."""
    cells = frame(
        cell("rival", "r" * N), cell("es2", "r" * N),
        cell("rival", "d" * N, attack="ablation", fitted_on="self"),
        cell("es2", "r" * N, attack="ablation", fitted_on="self"),
    )  # fmt: skip
    settings = replace(SETTINGS, harmful=("adv",), pairs=PAIRS[:1])
    tables = paired_table(cells, {}, settings), robustness_table(cells, {}, settings)
    found = one(rivals_table(*tables, STUDY), measure="dsr", attack="ablation")
    assert found["p_adjusted"] <= 0.05
    assert not found["claimed"]
    assert one(rivals(), measure="dsr", attack="ablation", run_b="rival")["claimed"]


def test_a_pair_with_ones_own_parent_has_the_ratio_to_it() -> None:
    study = replace(STUDY, parent="another", pairs=(("es2", "sft"),))
    verdicts = frame(
        *(part for run in ("sft", "es2") for part in (cell(run, "r" * N), curve(run, "adv", {1.0: "c" * N})))
    )
    settings = replace(SETTINGS, harmful=("adv",), pairs=(("es2", "sft"),), factors=(1.0,))
    budgets = {"m": {"scav_adaptive": [1.0]}}
    tables = paired_table(verdicts, budgets, settings), robustness_table(verdicts, budgets, settings)
    ratio = one(rivals_table(*tables, study), measure="half_compliance_ratio")
    assert ratio["value"] == pytest.approx(1.0)
    assert (ratio["p_adjusted"], ratio["claimed"]) == (1.0, False)


def test_the_control_is_found_under_its_name_in_the_ratios() -> None:
    found = one(rivals(), run_b="hold", measure="half_compliance_ratio")
    assert found["value"] == pytest.approx(1.5 / (4 / 7))


def test_the_pairs_as_they_are_read() -> None:
    head, body = shown_rivals(rivals(), STUDY)
    assert head == ["", "a: ES2; b: a rival", "a: ES2; b: hold"]
    text = {row[0]: row[1:] for row in body}
    assert next(iter(text)) == "half-compliance budget, a over b, adaptive SCAV"
    assert text["DSR, a minus b, direction ablation"] == ["1.00 [1.00, 1.00] *"] * 2
    assert text["DSR, a minus b, direct request"][0] == "0.00 [0.00, 0.00]"
    assert "robust DSR, a minus b, all attacks" in text
    assert text["half-compliance budget, a over b, adaptive SCAV"][0].startswith("2.25 [")
    assert text["half-compliance budget, a over b, adaptive SCAV"][0].endswith("] *")
    never = rivals().assign(value=math.inf, low=2.5, high=math.inf, censored=True)
    assert shown_rivals(never, STUDY)[1][0][1] == "> 2.50 (never) *"


def test_a_hollow_marker_is_no_certain_difference() -> None:
    figure = rivals_figure(rivals(), STUDY)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a: ES2\nb: a rival", "a: ES2\nb: hold"]
    middle, right = figure.axes[1], figure.axes[2]
    faces = [matplotlib.colors.to_hex(bar[0].get_markerfacecolor()) for bar in middle.containers]
    values = [round(float(bar[0].get_xdata()[0]), 3) for bar in middle.containers]
    assert {value for value, face in zip(values, faces, strict=True) if face == "#ffffff"} == {0.0}
    assert {value for value, face in zip(values, faces, strict=True) if face != "#ffffff"} == {0.75, 0.875, 1.0}
    assert all(matplotlib.colors.to_hex(bar[0].get_markerfacecolor()) == "#ffffff" for bar in right.containers)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == "adaptive SCAV"
    assert names[-2:] == ["plain requests", "look-dangerous requests"]


def test_a_long_name_takes_two_lines() -> None:
    points = {"panel": pd.DataFrame(columns=["key", "row", "name", "value", "low", "high", "filled"])}
    figure = forest_figure(points, ["circuit breakers, retain 10, 150 steps", "ES2"], {}, 5.0)
    texts = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert texts == ["circuit breakers, retain\n10, 150 steps", "ES2"]


@pytest.mark.filterwarnings("error")
def test_differences_of_nothing_still_have_a_panel() -> None:
    same = rivals().assign(value=0.0, low=0.0, high=0.0)
    left, right = rivals_figure(same, STUDY).axes[1].get_xlim()
    assert left < 0 < right


def test_without_pairs_there_is_nothing_to_show() -> None:
    alone = replace(STUDY, pairs=())
    empty = rivals_table(pd.DataFrame(columns=["run"]), pd.DataFrame(columns=["run"]), alone)
    assert shown_rivals(empty, alone) == ([""], [])
    texts = [text.get_text() for panel in rivals_figure(empty, alone).axes for text in panel.texts]
    assert texts == ["not measured"] * 3
