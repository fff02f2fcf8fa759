"""Several trainings: each seed's half-compliance budget, and what a run adds to its parent's (method.md section 7)."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from es2.plots.forest import forest_figure
from es2.plots.style import style
from es2.reporting import Study, attack_name, budget_attacks, rows

BUDGET, RATIO = "half-compliance\nbudget", "its ratio to\nthe parent's"
LESS = "compliance, less the\nparent's, at its budget"
ALL = "all, trainings drawn too"
Point = dict[str, Any]


def seeds_figure(seeds: pd.DataFrame, paired: pd.DataFrame, robustness: pd.DataFrame, study: Study) -> Figure:
    """Three panels, a row a run and attack over budgets, a marker a seed with its 95 % interval over prompts, and one
    for all seeds with that over prompts and trainings.

    seeds, paired, robustness: the tables of these names. The last panel is at the budget that brings the reference run
    to half compliance.
    """
    attacks = budget_attacks(robustness, study)
    places = [(run, attack) for run in study.runs for attack in attacks if run != study.base]
    labels = [study.label(run) + (f",\n{attack_name(attack)}" if len(attacks) > 1 else "") for run, attack in places]
    pooled = rows(robustness, study, fitted_on="self", benchmark="pooled")
    at_reference = rows(paired, study, fitted_on="self", benchmark="pooled", measure="compliance", factor=1.0)
    of_all = rows(seeds, study, fitted_on="self", benchmark="pooled")
    points: dict[str, list[Point]] = {BUDGET: [], RATIO: [], LESS: []}
    for row, (run, attack) in enumerate(places):
        about = {"key": run, "row": row, "filled": True}
        mine = pooled[(pooled["run"] == run) & (pooled["attack"] == attack)]
        points[BUDGET] += _each(mine[mine["measure"] == "half_compliance_budget"], about)
        points[RATIO] += _each(mine[mine["measure"] == "half_compliance_ratio_to_parent"], about)
        told = at_reference[(at_reference["run_a"] == run) & (at_reference["attack"] == attack)]
        points[LESS] += _each(told[told["run_b"] == told["parent"]].rename(columns={"difference": "value"}), about)
        mine = of_all[(of_all["run_a"] == run) & (of_all["run_b"] == of_all["parent"]) & (of_all["attack"] == attack)]
        points[RATIO] += _whole(mine[mine["measure"] == "half_compliance_ratio"], about)
        points[LESS] += _whole(mine[(mine["measure"] == "compliance") & (mine["factor"] == 1)], about)
    columns = ["key", "row", "filled", "name", "value", "low", "high"]
    with style():
        told_apart = {panel: pd.DataFrame(found, columns=columns) for panel, found in points.items()}
        return forest_figure(told_apart, labels, {RATIO: 1.0, LESS: 0.0}, 4.2 + 1.2 * max(len(places), 1))


def _each(found: pd.DataFrame, about: Point) -> Iterator[Point]:
    """A point a seed."""
    for row in found.sort_values("seed").itertuples():
        yield about | {"name": f"seed {row.seed}", "value": row.value, "low": row.low, "high": row.high}


def _whole(found: pd.DataFrame, about: Point) -> Iterator[Point]:
    """The point of all seeds together."""
    for row in found.itertuples():
        yield about | {"name": ALL, "value": row.value, "low": row.low, "high": row.high}
