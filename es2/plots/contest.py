"""The contest: what each run holds against every adaptive attack, and what that costs (method.md sections 5 to 8)."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from es2.plots.style import (
    GREY,
    HANDLE_CHARACTERS,
    LIGHT,
    MARKERS,
    PALETTE,
    error_lengths,
    legend_columns,
    new_figure,
    plain_ticks,
    say_empty,
    style,
)
from es2.reporting import ATTACK_NAMES, Study

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
    mine = contest[(contest["model"] == study.model) & (contest["run"] != study.base)]
    mine = mine[mine["seed"] == mine.groupby("run")["seed"].transform("min")]
    runs = [run for run in study.runs if run in set(mine["run"])]
    points = {panel: _points(mine, panel) for panel in PANELS}
    looks = _looks(points)
    with style():
        figure, axes = new_figure(4.2 + 1.0 * max(len(runs), 1), 1, len(PANELS), sharey=True)
        for panel, (name, title) in zip(axes[0], PANELS.items(), strict=True):
            panel.set_title(title)
            _draw(panel, points[name], runs, looks)
        axes[0, 0].set_yticks(range(len(runs)), [study.label(run) for run in runs])
        axes[0, 0].set_ylim(max(len(runs), 1) - 0.5, -0.5)
        competes = dict(zip(*mine.loc[mine["measure"] == "competes", ["run", "kept"]].to_numpy().T, strict=True))
        for label, run in zip(axes[0, 0].get_yticklabels(), runs, strict=True):
            label.set_color("black" if competes.get(run, True) else GREY)
        if runs:
            axes[0, 0].axvline(1, color=GREY, lw=0.8, ls=":", zorder=0)
        handles = [
            Line2D([], [], ls="", color=color, marker=marker, label=name) for name, (color, marker) in looks.items()
        ]
        if handles:
            columns = legend_columns([name + " " * HANDLE_CHARACTERS for name in looks])
            figure.legend(handles=handles, loc="outside upper left", ncols=columns)
    return figure


def _points(mine: pd.DataFrame, panel: str) -> pd.DataFrame:
    """What a panel shows: run, name (of the attack or harmless set), value, low, high."""
    if panel == "cost":
        found = mine[mine["measure"].isin(COSTS)]
        return found.assign(name=found["measure"].map(COSTS))
    found = mine[(mine["measure"] == panel) & mine["value"].notna()]
    names = [ATTACK_NAMES.get(attack, attack.replace("_", " ")) for attack in found["attack"]]
    return found.assign(name=names)


def _looks(points: Mapping[str, pd.DataFrame]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name, in the order of the panels."""
    names = dict.fromkeys(name for part in points.values() for name in part["name"])
    # Where the colours begin again, the markers do not.
    n = len(PALETTE)
    return {name: (PALETTE[i % n], MARKERS[(i + i // n) % len(MARKERS)]) for i, name in enumerate(names)}


def _draw(panel: Axes, points: pd.DataFrame, runs: Sequence[str], looks: Mapping[str, tuple[str, str]]) -> None:
    panel.tick_params(axis="y", length=0)
    for place in range(len(runs) - 1):
        panel.axhline(place + 0.5, color=LIGHT, lw=0.8, zorder=0)
    if points.empty:
        say_empty(panel, "not measured", keep_y=True)
        return
    names = list(dict.fromkeys(points["name"]))
    step = min(0.2, 0.8 / len(names))
    known = [value for value in (*points["value"], *points["high"]) if value < float("inf")]
    limit = 1.05 * max(known)
    for row in points.itertuples():
        color, marker = looks[row.name]
        height = runs.index(row.run) + step * (names.index(row.name) - (len(names) - 1) / 2)
        # A budget that was never reached is at least its lower end: an arrow, no point.
        value = min(row.value, limit) if row.value < float("inf") else row.low
        ends = error_lengths(value, row.low, row.high, limit)
        panel.errorbar(value, height, xerr=ends, fmt=marker, color=color, ms=5, elinewidth=1.2, label=f"_{row.run}")
        if row.value == float("inf"):
            panel.plot(limit, height, marker=">", color=color, ms=5, clip_on=False, label=f"_open_{row.run}")
    panel.set_xlim(-0.02 * limit, limit)
    panel.grid(axis="x", color=LIGHT, lw=0.6)
    panel.set_axisbelow(True)
    plain_ticks(panel.xaxis)
