"""The figures that set one measure against another: dose and response, balance, trade-off."""

import pytest
import synthetic
from drawing import NEVER
from synthetic import Truth

from es2.plots.balance import balance_figure, balance_points
from es2.plots.dose_response import dose_points, dose_response_figure, relative_separation
from es2.plots.tradeoff import BUDGET, DSR, tradeoff_figure, tradeoff_points


def test_dose_is_relative_to_the_parent_and_a_censored_response_points_up() -> None:
    t, study = synthetic.all_tables(NEVER), NEVER.study()
    layers = {(run, 0): (12, 18) for run in study.runs}
    points = {p.run: p for p in dose_points(t.separability, t.robustness, t.dsr, study, layers)}
    assert set(points) == {"refusal_sft", "hold", "es2"}
    assert points["refusal_sft"].dose.value == pytest.approx(1.0)
    assert points["es2"].dose.value > 1.5
    assert points["es2"].response.censored
    assert points["es2"].response.value == max(synthetic.BUDGETS)
    panel = dose_response_figure(list(points.values()), study).axes[0]
    assert [line.get_marker() for line in panel.get_lines()].count("^") == 2  # hold's own mark and the arrow


def test_the_dose_of_a_run_is_taken_where_it_was_trained() -> None:
    truth = Truth()
    t, study = synthetic.all_tables(truth), truth.study()
    deeper = t.separability["layer"] == 18
    table = t.separability.assign(value=t.separability["value"].where(~deeper | (t.separability["run"] != "es2"), 9.0))
    layers = {("refusal_sft", 0): [12, 18], ("hold", 0): [12, 18], ("es2", 0): [12]}
    dose = {p.run: p.dose.value for p in dose_points(table, t.robustness, t.dsr, study, layers)}
    assert dose["es2"] == pytest.approx(relative_separation(t.separability, study, "es2", 0, [12]).value)
    assert dose["hold"] == pytest.approx(relative_separation(t.separability, study, "hold", 0, [12, 18]).value)
    assert dose["es2"] < relative_separation(table, study, "es2", 0, [12, 18]).value
    assert {p.run for p in dose_points(table, t.robustness, t.dsr, study, {("es2", 0): [12]})} == {"es2"}


def test_each_seed_has_the_layers_that_it_was_trained_at() -> None:
    truth = Truth(seeds=(0, 1))
    t, study = synthetic.all_tables(truth), truth.study()
    deeper = (t.separability["layer"] == 18) & (t.separability["run"] == "es2")
    table = t.separability.assign(value=t.separability["value"].where(~deeper, 9.0))
    layers = {("es2", 0): [12, 18], ("es2", 1): [12]}
    dose = {p.seed: p.dose.value for p in dose_points(table, t.robustness, t.dsr, study, layers)}
    for seed, mine in ((0, [12, 18]), (1, [12])):
        assert dose[seed] == pytest.approx(relative_separation(table, study, "es2", seed, mine).value)
    assert dose[0] > 1.5 * dose[1]


def test_balance_sets_harmful_refusals_against_harmless_ones() -> None:
    truth = Truth()
    t, study = synthetic.all_tables(truth), truth.study()
    points = balance_points(t.dsr, study, study.plain, "advbench")
    cells = t.dsr[(t.dsr["attack"] == "direct") & (t.dsr["seed"] == 0)].set_index(["run", "benchmark"])["refusal"]
    assert {run for run, _ in points} == set(study.runs)
    for (run, _), (safe, harmful) in points.items():
        assert safe.value == pytest.approx(cells[run, study.plain])
        assert harmful.value == pytest.approx(cells[run, "advbench"])
    figure = balance_figure(t.dsr, study)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["AdvBench", "StrongREJECT"] * 2
    fields = [panel.patches[0] for panel in figure.axes]
    assert [(field.get_width(), field.get_y()) for field in fields] == [(0.10, 0.85)] * 2 + [(0.25, 0.85)] * 2
    without = t.dsr[t.dsr["benchmark"] != study.plain]
    assert balance_points(without, study, study.plain, "advbench") == {}
    assert balance_figure(without, study).axes[0].texts[0].get_text() == "not measured"


def test_tradeoff_counts_kl_from_one_reference_and_falls_back_to_dsr() -> None:
    truth = Truth()
    t, study = synthetic.all_tables(truth), truth.study()
    measured_by, points = tradeoff_points(t.dsr, t.robustness, t.ability, study)
    assert measured_by == BUDGET
    kl = {p.run: p.costs[0].value for p in points}
    assert kl == {"refusal_sft": 0.0, "hold": 0.0006, "es2": 0.021}
    measured_by, points = tradeoff_points(t.dsr, t.robustness.iloc[:0], t.ability, study)
    assert measured_by == DSR
    assert [p.run for p in points] == list(truth.runs)
    left, right = tradeoff_figure(t.dsr, t.robustness, t.ability, study).axes[0].get_xlim()
    assert left < 0 < 0.0263 < right
