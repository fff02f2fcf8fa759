"""The contest: what each run holds against every adaptive attack, and what that costs (method.md sections 5 to 8)."""

import pandas as pd
from matplotlib.figure import Figure

from es2.plots.forest import forest_figure
from es2.plots.style import GREY, style
from es2.reporting import Study, attack_name, first_seeds

PANELS = {
    "half_compliance_ratio": "half-compliance\nbudget / parent's",
    "dsr": "DSR, direct and\nwithout a budget",
    "cost": "harmless requests\nrefused",
}
COSTS = {"plain_refused": "plain requests", "look_dangerous_refused": "look-dangerous requests"}


def contest_figure(contest: pd.DataFrame, study: Study) -> Figure:
    """Three panels, a row a run, a marker an attack (or a harmless set) with its 95 % interval, at the first seed.

    A run that exceeds a bound of the contest is written in grey.
    """
    mine = contest[(contest["model"] == study.model) & contest["run"].isin(study.attacked)]
    mine = first_seeds(mine)
    runs = [run for run in study.runs if run in set(mine["run"])]
    mine = mine.assign(key=mine["run"], row=[runs.index(run) for run in mine["run"]], filled=True)
    points = {title: _points(mine, measure) for measure, title in PANELS.items()}
    with style():
        origins = {PANELS["half_compliance_ratio"]: 1.0}
        figure = forest_figure(points, [study.label(run) for run in runs], origins, 4.2 + 1.0 * max(len(runs), 1))
        competes = dict(zip(*mine.loc[mine["measure"] == "competes", ["run", "kept"]].to_numpy().T, strict=True))
        for label, run in zip(figure.axes[0].get_yticklabels(), runs, strict=True):
            label.set_color("black" if competes.get(run, True) else GREY)
    return figure


def _points(mine: pd.DataFrame, measure: str) -> pd.DataFrame:
    """What a panel shows, each point with its `name`, that of the attack or of the harmless set."""
    if measure == "cost":
        found = mine[mine["measure"].isin(COSTS)]
        return found.assign(name=found["measure"].map(COSTS))
    found = mine[(mine["measure"] == measure) & mine["value"].notna()]
    return found.assign(name=[attack_name(attack) for attack in found["attack"]])
