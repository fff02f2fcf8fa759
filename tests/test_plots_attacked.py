"""The figures of runs under attack: robustness curves and the shares refused under each attack."""

from math import inf

import numpy as np
import pandas as pd
import pytest
import synthetic
from drawing import NEVER, every_text, legend_texts, named_lines
from matplotlib.figure import Figure
from synthetic import Truth

from es2.plots.dsr import dot_rows, dsr_figure
from es2.plots.robustness import robustness_figure
from es2.reporting import curve


def test_robustness_begins_at_the_direct_request_and_marks_the_half(drawn: dict[str, Figure]) -> None:
    refusal, compliance, degenerate = drawn["robustness"].axes
    assert [p.get_title(loc="left") for p in (refusal, compliance, degenerate)] == [
        "refusal", "compliance", "degenerate",
    ]  # fmt: skip
    assert named_lines(refusal) == ["refusal_sft", "hold", "es2"]
    line = next(line for line in refusal.get_lines() if line.get_label() == "es2")
    assert line.get_xdata()[0] == 0
    assert line.get_ydata()[0] == pytest.approx(0.9, abs=0.01)
    marks = [c for c in compliance.containers if str(c.get_label()).startswith("_half_")]
    assert [c.lines[0].get_xdata()[0] for c in marks] == pytest.approx([0.018, 0.0185, 0.032])
    assert refusal.get_xlim()[0] == 0
    assert "RMS of |step| / |e|" in every_text(drawn["robustness"])


def test_a_run_that_never_falls_is_named_in_the_legend() -> None:
    t = synthetic.all_tables(NEVER)
    figure = robustness_figure(t.dsr, t.robustness, NEVER.study())
    assert legend_texts(figure) == ["refusal SFT", "hold", "ES2 (never half)"]
    marks = [str(c.get_label()) for c in figure.axes[1].containers if str(c.get_label()).startswith("_half_")]
    assert marks == ["_half_refusal_sft", "_half_hold"]


def test_a_run_that_falls_at_another_seed_is_not_said_to_hold() -> None:
    truth = Truth(seeds=(0, 1))
    t = synthetic.all_tables(truth)
    first = (t.robustness["run"] == "es2") & (t.robustness["seed"] == 0)
    table = t.robustness.copy()
    table.loc[first & (table["measure"] == "half_compliance_budget"), ["value", "high", "censored"]] = [inf, inf, True]
    figure = robustness_figure(t.dsr, table, truth.study())
    assert legend_texts(figure) == ["refusal SFT", "hold", "ES2 (never half at seed 0)"]


def test_shares_of_the_curve_add_up_to_one() -> None:
    truth = Truth()
    points = curve(synthetic.dsr_table(truth), truth.study(), "es2", 0)
    assert list(points["budget"]) == [0.0, *synthetic.BUDGETS]
    assert np.allclose(points[["refusal", "compliance", "degenerate"]].sum(axis=1), 1.0)
    assert (points["refusal_low"] <= points["refusal"]).all()
    assert (points["refusal"] <= points["refusal_high"]).all()


def test_dsr_rows_are_in_the_order_of_the_attacks() -> None:
    truth = Truth()
    t = synthetic.all_tables(truth)
    points = dot_rows(t.dsr, t.robustness, truth.study())
    assert list(dict.fromkeys(points["row"])) == [
        "direct request", "SCAV, fitted\non base", "SCAV, fitted\non parent", "SCAV, fitted\non itself",
        "random push\n(control)", "adaptive SCAV\nbudget 0.009", "adaptive SCAV\nbudget 0.018",
        "adaptive SCAV\nbudget 0.036",
    ]  # fmt: skip
    figure = dsr_figure(t.dsr, t.robustness, truth.study())
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["AdvBench", "StrongREJECT"]
    for panel in figure.axes:
        assert panel.get_xlim() == (-0.02, 1.02)
        assert len(panel.containers) == sum(points["benchmark"] == "advbench")


def with_addition(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a second attack over budgets, as strong as the first."""
    mine = table[table["attack"] == "scav_adaptive"]
    return pd.concat([table, mine.assign(attack="addition")], ignore_index=True)


def test_several_attacks_over_budgets_have_a_row_each_and_a_worst_case() -> None:
    truth = Truth()
    t = synthetic.all_tables(truth)
    dsr, robustness = with_addition(t.dsr), with_addition(t.robustness)
    names = list(dict.fromkeys(dot_rows(dsr, robustness, truth.study())["row"]))
    assert names[5:] == [
        *(f"adaptive SCAV\nbudget {budget}" for budget in ("0.009", "0.018", "0.036")),
        *(f"activation addition\nbudget {budget}" for budget in ("0.009", "0.018", "0.036")),
        *(f"worst over budgets,\n{factor} x the parent's" for factor in ("0.5", "1", "2")),
    ]
    one = robustness_figure(t.dsr, t.robustness, truth.study())
    two = robustness_figure(dsr, robustness, truth.study())
    assert (len(one.axes), len(two.axes)) == (3, 6)
    labels = [panel.get_ylabel() for panel in two.axes if panel.get_ylabel()]
    assert labels == ["adaptive SCAV\nshare of answers", "activation addition\nshare of answers"]
    for above, below in zip(two.axes[:3], two.axes[3:], strict=True):
        assert named_lines(above) == named_lines(below)
