"""Panels side by side with a row a run (or a pair of runs) and a marker a measure with its 95 % interval."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from es2.plots.style import (
    GREY,
    LIGHT,
    MARKERS,
    PALETTE,
    error_lengths,
    legend_columns,
    new_figure,
    plain_ticks,
    say_empty,
)

Looks = Mapping[str, tuple[str, str]]
WIDTH = 26  # of a row's name, in letters


def forest_figure(
    points: Mapping[str, pd.DataFrame], labels: Sequence[str], origins: Mapping[str, float], height_cm: float
) -> Figure:
    """One panel an entry of `points`, titled by its key; call it inside `style()`.

    points: columns key (of the row, for tests to find), row (place in `labels`), name (of the marker, one look in all
    panels), value, low, high, and `filled`, a marker that is not filled being one that tells nothing for certain.
    origins: where a panel has a dotted line.
    """
    looks = _looks(points)
    figure, axes = new_figure(height_cm, 1, len(points), sharey=True)
    for panel, (title, told) in zip(axes[0], points.items(), strict=True):
        panel.set_title(title)
        _draw(panel, told, len(labels), looks)
        if title in origins and len(told):
            panel.axvline(origins[title], color=GREY, lw=0.8, ls=":", zorder=0)
    # A long name would take the panels' room.
    axes[0, 0].set_yticks(range(len(labels)), [name if "\n" in name else fill(name, WIDTH) for name in labels])
    axes[0, 0].set_ylim(max(len(labels), 1) - 0.5, -0.5)
    handles = [Line2D([], [], ls="", color=color, marker=marker, label=name) for name, (color, marker) in looks.items()]
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=legend_columns(list(looks)))
    return figure


def _looks(points: Mapping[str, pd.DataFrame]) -> Looks:
    """Colour and marker of each name, in the order of the panels."""
    names = dict.fromkeys(name for part in points.values() for name in part["name"])
    # Where the colours begin again, the markers do not.
    n = len(PALETTE)
    return {name: (PALETTE[i % n], MARKERS[(i + i // n) % len(MARKERS)]) for i, name in enumerate(names)}


def _draw(panel: Axes, points: pd.DataFrame, rows: int, looks: Looks) -> None:
    panel.tick_params(axis="y", length=0)
    for place in range(rows - 1):
        panel.axhline(place + 0.5, color=LIGHT, lw=0.8, zorder=0)
    if points.empty:
        say_empty(panel, "not measured", keep_y=True)
        return
    names = list(dict.fromkeys(points["name"]))
    step = min(0.2, 0.8 / len(names))
    known = [value for column in ("value", "low", "high") for value in points[column] if abs(value) < float("inf")]
    # Where all is zero the panel still has a width.
    least, limit = min(known), 1.05 * max(known) if any(known) else 1.0
    for row in points.itertuples():
        color, marker = looks[row.name]
        height = row.row + step * (names.index(row.name) - (len(names) - 1) / 2)
        # A budget that was never reached is at least its lower end: an arrow, no point.
        value = min(row.value, limit) if row.value < float("inf") else row.low
        ends = error_lengths(value, row.low, row.high, limit)
        face = color if row.filled else "white"
        panel.errorbar(
            value, height, xerr=ends, fmt=marker, color=color, mfc=face, ms=5, elinewidth=1.2, label=f"_{row.key}"
        )
        if row.value == float("inf"):
            panel.plot(limit, height, marker=">", color=color, ms=5, clip_on=False, label=f"_open_{row.key}")
    panel.set_xlim(1.05 * least if least < 0 else -0.02 * limit, max(limit, 0.0))
    panel.grid(axis="x", color=LIGHT, lw=0.6)
    panel.set_axisbelow(True)
    plain_ticks(panel.xaxis)
