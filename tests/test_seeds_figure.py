"""The figure of several trainings: a marker a seed from the tables of one training, one for all from `seeds.csv`."""

from dataclasses import replace

import pandas as pd
import pytest
from verdict_frames import SETTINGS, cell, curve, frame, one

from es2.plots.seeds import ALL, seeds_figure
from es2.reporting import Study
from es2.tables.paired import paired_table
from es2.tables.robustness import robustness_table
from es2.tables.seeds import seeds_table

STUDY = Study(model="m", runs=("base", "sft", "es2"), parent="sft", harmful=("adv",), labels={"es2": "ES2"})
COMPLYING = {("sft", 0): 6, ("sft", 1): 4, ("es2", 0): 2, ("es2", 1): 1}
"""Of eight prompts, those that comply at budget 1, by run and seed."""


def tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    parts = []
    for (run, seed), complying in COMPLYING.items():
        told = [cell(run, "r" * 8), curve(run, "adv", {1.0: "c" * complying + "r" * (8 - complying), 2.0: "c" * 8})]
        parts += [[line | {"seed": seed} for line in part] for part in told]
    settings = replace(SETTINGS, harmful=("adv",), factors=(1.0,))
    verdicts, budgets = frame(*parts), {"m": {"scav_adaptive": [1.0]}}
    made = (seeds_table, paired_table, robustness_table)
    seeds, paired, robustness = (table(verdicts, budgets, settings) for table in made)
    return seeds, paired, robustness


def markers(panel: object) -> list[float]:
    return [float(bar[0].get_xdata()[0]) for bar in panel.containers]  # type: ignore[attr-defined]


def test_a_marker_a_seed_and_one_for_all() -> None:
    seeds, paired, robustness = tables()
    figure = seeds_figure(seeds, paired, robustness, STUDY)
    budget, ratio, less = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["seed 0", "seed 1", ALL]
    assert [label.get_text() for label in budget.get_yticklabels()] == ["sft", "ES2"]
    assert markers(budget) == pytest.approx([4 / 6, 1.0, 1 + 2 / 6, 1 + 3 / 7])
    whole = one(seeds, run_a="es2", run_b="sft", measure="half_compliance_ratio", benchmark="pooled")
    assert markers(ratio) == pytest.approx([(1 + 2 / 6) / (4 / 6), 1 + 3 / 7, whole["value"]])
    assert markers(less) == pytest.approx([-0.5, -0.375, -0.4375])


def test_an_attack_over_budgets_that_was_not_tried_leaves_the_panels_empty() -> None:
    empty = seeds_figure(*(table.iloc[:0] for table in tables()), STUDY)
    assert [text.get_text() for panel in empty.axes for text in panel.texts] == ["not measured"] * 3
