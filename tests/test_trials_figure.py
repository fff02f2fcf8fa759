"""The grid of trials and the Pareto figure: what is drawn where."""

import math

import pandas as pd
import pytest
from synthetic import LABELS, MODEL

from es2.plots.pareto import bargains, front, pareto_figure
from es2.plots.style import GREY
from es2.plots.trials import PANELS, trials_figure
from es2.reporting import Study

STUDY = Study(MODEL, ("base", "refusal_sft", "hold", "es2"), labels=LABELS)
BOUNDS = {"kl_heldout": 0.05, "plain_refused": 0.1, "plain_degenerate_added": 0.02}


def trials() -> pd.DataFrame:
    rows = [
        {"run": "hold", "kl_heldout": 0.001, "half": (0.01, 0.009, 0.011), "admissible": True, "chosen": True},
        {"run": "es2", "kl_heldout": 0.03, "half": (math.inf, 0.04, math.inf), "admissible": True, "chosen": True},
        {"run": "es2_wild", "kl_heldout": 0.2, "half": (0.02, 0.01, 0.03), "admissible": False, "chosen": False},
    ]
    table = pd.DataFrame(rows).assign(model=MODEL, seed=0, plain_refused=0.05, plain_degenerate_added=0.0)
    table[["half_compliance_budget", "low", "high"]] = table.pop("half").tolist()
    return table.assign(censored=table["half_compliance_budget"] == math.inf, refused_attacked=math.nan)


def test_a_trial_that_breaks_a_bound_is_grey_and_a_choice_is_bold() -> None:
    names = trials_figure(trials(), STUDY, BOUNDS).axes[0].get_yticklabels()
    assert [text.get_text() for text in names] == ["hold", "ES2", "es2 wild"]
    assert [text.get_color() == GREY for text in names] == [False, False, True]
    assert [text.get_fontweight() for text in names] == ["bold", "bold", "normal"]


def test_bounds_are_drawn_and_an_open_budget_is_an_arrow() -> None:
    axes = trials_figure(trials(), STUDY, BOUNDS).axes
    dotted = [[line for line in panel.lines if line.get_linestyle() == ":"] for panel in axes]
    assert [len(lines) for lines in dotted] == [0, 1, 1]
    assert dotted[1][0].get_xdata()[0] == BOUNDS["kl_heldout"]
    arrows = [line for line in axes[0].lines if line.get_label() == "_open_es2"]
    assert len(arrows) == 1
    assert arrows[0].get_xdata()[0] == pytest.approx(axes[0].get_xlim()[1])


def test_a_cost_beyond_the_axis_is_an_arrow_at_its_end() -> None:
    """0.2 nats are four times the bound, where the others would all stand at zero; so is a training that collapsed."""
    for wild in (0.2, math.inf):
        table = trials()
        table.loc[2, "kl_heldout"] = wild
        panel = trials_figure(table, STUDY, BOUNDS).axes[1]
        drawn = {line.get_label(): line for line in panel.lines}
        end = panel.get_xlim()[1]
        assert end <= 2.5 * BOUNDS["kl_heldout"] + 1e-9
        assert drawn["_es2_wild"].get_marker() == ">"
        assert drawn["_es2_wild"].get_xdata()[0] == pytest.approx(end)
        assert drawn["_es2"].get_marker() == "*"


def test_degenerate_answers_have_a_panel_where_a_trial_breaks_their_bound() -> None:
    table = trials()
    table.loc[1, "plain_degenerate_added"] = 0.033
    axes = trials_figure(table, STUDY, BOUNDS).axes
    assert [panel.get_title(loc="left") for panel in axes] == [*PANELS.values(), "plain\ndegenerate,\nadded"]
    assert next(line for line in axes[3].lines if line.get_linestyle() == ":").get_xdata()[0] == 0.02


def test_searches_without_a_budget_have_a_panel_of_their_own() -> None:
    figure = trials_figure(trials().assign(refused_attacked=[0.0, 0.4, 0.2]), STUDY, BOUNDS)
    assert len(figure.axes) == len(PANELS) + 1
    drawn = {line.get_label(): line.get_xdata()[0] for line in figure.axes[-1].lines if len(line.get_xdata()) == 1}
    assert {drawn[f"_{run}"] for run in ("hold", "es2", "es2_wild")} == {0.0, 0.4, 0.2}
    assert len(trials_figure(trials(), STUDY, BOUNDS).axes) == len(PANELS)
    nothing = trials_figure(trials().assign(refused_attacked=0.0), STUDY, BOUNDS).axes[-1]
    assert nothing.get_xlim() == pytest.approx((-0.03, 1.0)), "shares of zero, not an axis around zero"


def test_no_trials_is_an_empty_figure() -> None:
    figure = trials_figure(trials().iloc[:0], STUDY, BOUNDS)
    assert len(figure.axes) == len(PANELS)


def test_the_front_is_what_no_other_beats_in_both() -> None:
    points = [(0.3, 0.9), (0.1, 0.5), (0.2, 0.4), (0.1, 0.2), (0.4, 0.9)]
    naive = [a for a in points if not any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in points)]
    assert front(points) == sorted(naive) == [(0.1, 0.5), (0.3, 0.9)]


def contest_and_ability() -> tuple[pd.DataFrame, pd.DataFrame]:
    head = {"model": MODEL, "method": "es2", "parent": "refusal_sft", "seed": 0}
    dsr = {"refusal_sft": 0.2, "hold": 0.25, "es2": 0.8}
    contest = pd.DataFrame(
        [
            head | {"run": run, "measure": name, "attack": attack, "factor": factor}
            | {"value": value, "low": value - 0.05, "high": value + 0.05}
            for run, share in dsr.items()
            for name, attack, factor, value in (
                ("look_dangerous_refused", "", math.nan, share / 4),
                ("robust_dsr", "worst_case", 0.5, 0.95),
                ("robust_dsr", "worst_case", 1.0, share),
                ("robust_dsr", "worst_case_all", 1.0, 0.0),
            )
        ]
    )  # fmt: skip
    ability = pd.DataFrame(
        [
            head | {"run": run, "task": task, "metric": metric, "reference": "parent", "value": value}
            | {"low": value - 0.01, "high": value + 0.01}
            | {"difference": value, "difference_low": value - 0.02, "difference_high": value + 0.01}
            for run, kl, lost in (("hold", 0.001, 0.0), ("es2", 0.03, -0.2))
            for task, metric, value in (("kl_to_parent", "plain", kl), ("mmlu", "logprob_normalised", lost))
        ]
    )  # fmt: skip
    return contest, ability


def test_a_bargain_is_robust_dsr_at_the_parents_budgets_and_three_costs() -> None:
    parent, hold, es2 = bargains(*contest_and_ability(), STUDY)
    assert (parent.run, parent.safety.value, parent.costs[0].value, parent.costs[1].value) == ("refusal_sft", 0.2, 0, 0)
    assert hold.costs[0].value == 0.001
    assert es2.safety.value == 0.8
    lost = es2.costs[1]
    assert (lost.value, lost.low, lost.high) == pytest.approx((0.2, 0.19, 0.22))
    assert es2.costs[2].value == 0.2


def test_without_ability_two_panels_say_so_for_all_but_the_parent() -> None:
    contest, ability = contest_and_ability()
    figure = pareto_figure(contest, ability.iloc[:0], STUDY)
    drawn = [{str(part.get_label()) for part in panel.containers} for panel in figure.axes]
    assert drawn == [{"_refusal_sft"}, {"_refusal_sft"}, {"_refusal_sft", "_hold", "_es2"}]
