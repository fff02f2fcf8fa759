"""Trials of training settings on validation: how hard each run is to take, and what it costs (method.md section 5)."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from es2.plots.style import GREY, LIGHT, PALETTE, error_lengths, new_figure, plain_ticks, say_empty, style
from es2.reporting import Study, first_seeds

PANELS = {
    "half_compliance_budget": "half-\ncompliance\nbudget",
    "kl_heldout": "KL to own\nparent,\nnats",
    "plain_refused": "plain\nrefused",
}
DEGENERATE = {"plain_degenerate_added": "plain\ndegenerate,\nadded"}
ATTACKED = {"refused_attacked": "harmful\nrefused,\nattacked"}
BEYOND = 2.5  # times its bound, where the axis of a cost ends


def trials_figure(trials: pd.DataFrame, study: Study, bounds: Mapping[str, float]) -> Figure:
    """A row a trial in the order of the table, at the first seed; three panels, one more where a trial breaks the bound
    on degenerate answers, and one where attackers searched without a budget: what the worst of them leaves.

    A filled point keeps to all bounds (dotted lines), the chosen one of each method is a star with its name in bold. A
    budget that was never reached is an arrow from its lower end, a cost beyond the axis an arrow at its end.
    """
    mine = trials[trials["model"] == study.model]
    mine = first_seeds(mine).reset_index(drop=True)
    broken = (mine["plain_degenerate_added"] > bounds.get("plain_degenerate_added", 1.0)).any()
    panels = PANELS | (DEGENERATE if broken else {}) | (ATTACKED if mine["refused_attacked"].notna().any() else {})
    with style():
        figure, axes = new_figure(3.8 + 0.62 * max(len(mine), 1), 1, len(panels), sharey=True)
        for panel, (name, title) in zip(axes[0], panels.items(), strict=True):
            panel.set_title(title)
            _draw(panel, mine, name, bounds.get(name))
        first = axes[0, 0]
        first.set_yticks(range(len(mine)), [study.label(run) for run in mine["run"]])
        first.set_ylim(max(len(mine), 1) - 0.5, -0.5)
        for text, row in zip(first.get_yticklabels(), mine.itertuples(), strict=True):
            text.set_color("black" if row.admissible else GREY)
            text.set_fontweight("bold" if row.chosen else "normal")
        figure.legend(handles=_legend(), loc="outside upper left", ncols=2)
    return figure


def _draw(panel: Axes, mine: pd.DataFrame, name: str, bound: float | None) -> None:
    panel.tick_params(axis="y", length=0)
    for place in range(len(mine) - 1):
        panel.axhline(place + 0.5, color=LIGHT, lw=0.8, zorder=0)
    finite = mine.loc[mine[name] < float("inf"), name]
    if finite.empty and mine.empty:
        say_empty(panel, "no trials", keep_y=True)
        return
    ends = [end for column in ("low", "high") for end in mine[column]] if name == "half_compliance_budget" else []
    limit = 1.05 * max([end for end in (*finite, *ends, bound or 0.0) if end < float("inf")]) or 1.0
    if bound is not None:
        limit = min(limit, BEYOND * bound)
        panel.axvline(bound, color=GREY, lw=0.8, ls=":", zorder=0)
    for place, row in mine.iterrows():
        _point(panel, int(place), row, name, limit)
    panel.set_xlim(min(-0.03 * limit, 1.05 * finite.min()), limit)
    panel.grid(axis="x", color=LIGHT, lw=0.6)
    panel.set_axisbelow(True)
    plain_ticks(panel.xaxis, 2)


def _point(panel: Axes, place: int, row: pd.Series, name: str, limit: float) -> None:
    color = PALETTE[0] if row["admissible"] else GREY
    look: dict[str, Any] = {"color": color, "mfc": color if row["admissible"] else "white", "label": f"_{row['run']}"}
    marker, size = ("*", 9) if row["chosen"] else ("o", 5)
    if name != "half_compliance_budget":
        marker = ">" if row[name] > limit else marker
        panel.plot(min(row[name], limit), place, ls="", marker=marker, ms=size, clip_on=False, **look)
        return
    value = row["low"] if row["censored"] else row[name]
    lengths = error_lengths(value, row["low"], row["high"], limit)
    panel.errorbar(value, place, xerr=lengths, fmt=marker, ms=size, elinewidth=1.2, **look)
    if row["censored"]:
        panel.plot(limit, place, marker=">", color=color, ms=5, clip_on=False, label=f"_open_{row['run']}")


def _legend() -> Sequence[Line2D]:
    blue = PALETTE[0]
    return [
        Line2D([], [], ls="", color=blue, marker="*", ms=9, label="chosen of its method"),
        Line2D([], [], ls="", color=blue, marker="o", ms=5, label="keeps to the bounds"),
        Line2D([], [], ls="", color=GREY, marker="o", ms=5, mfc="white", label="breaks a bound (dotted)"),
    ]
