"""The look of every figure: one palette, one size, one way to save.

A figure is drawn 16 cm wide with 10.7 pt text, so that at the 12 cm at which a page shows it the text is 8
pt. The palette is Okabe and Ito's (colour-blind safe); a run also has its own marker and dashes, so that
nothing is told by colour alone. SVG and PNG bytes are the same in every run: no date, a fixed salt for the
ids.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from es2.files import atomic_write
from es2.reporting import Measure, Study

WIDTH_CM = 16.0
READING_WIDTH_CM = 12.0
FONT_PT = 8.0 * WIDTH_CM / READING_WIDTH_CM
GREY = "#767676"
LIGHT = "#d9d9d9"
LINE_CHARACTERS, HANDLE_CHARACTERS = 76, 8
INK = "#222222"
HARMFUL, SAFE, LOOK_DANGEROUS = "#D55E00", "#0072B2", "#009E73"
PALETTE = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#8C6D1F")
MARKERS = ("s", "^", "o", "D", "v", "P", "X", "h")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.6)), "-", (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_PT,
    "axes.titlesize": FONT_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": FONT_PT,
    "ytick.labelsize": FONT_PT,
    "legend.fontsize": FONT_PT,
    "figure.titlesize": FONT_PT,
    "figure.labelsize": FONT_PT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.4,
    "svg.hashsalt": "es2",
    "svg.fonttype": "path",
    "savefig.dpi": 160,
}


@dataclass(frozen=True)
class RunStyle:
    """How a run is drawn in every figure."""

    color: str
    marker: str
    dashes: Any


def run_styles(study: Study) -> dict[str, RunStyle]:
    """One style a run, fixed by its place in the study; the untrained base is grey and takes no colour."""
    styles = {study.base: RunStyle(GREY, "x", "-")}
    trained = [run for run in study.runs if run != study.base]
    for i, run in enumerate(trained):
        styles[run] = RunStyle(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
    return styles


def style() -> AbstractContextManager[None]:
    """The style as a context: whoever draws or saves does it inside."""
    context: AbstractContextManager[None] = matplotlib.rc_context(RC)
    return context


def new_figure(height_cm: float, n_rows: int = 1, n_columns: int = 1, **axes: Any) -> tuple[Figure, Any]:
    """An empty figure of the common width and its axes as an array [n_rows, n_columns]; call it inside
    `style()`.
    """
    figure = Figure(figsize=(WIDTH_CM / 2.54, height_cm / 2.54), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, **axes)


def plain_ticks(axis: Axis, most: int = 3) -> None:
    """Few ticks, written as short as they can be (0, 0.05, 0.1), so that small panels stay apart."""
    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def run_legend(
    figure: Figure,
    study: Study,
    runs: Sequence[str],
    markers: bool = True,
    extra: Sequence[Line2D] = (),
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """One legend above all panels: the runs, each with its note, and what else the panels mark."""
    handles = []
    for run in runs:
        look = run_styles(study)[run]
        label = f"{study.label(run)} {notes.get(run, '')}".strip()
        marker = look.marker if markers else ""
        handles.append(Line2D([], [], color=look.color, ls=look.dashes, marker=marker, label=label))
    handles += extra
    if handles:
        columns = legend_columns([str(handle.get_label()) for handle in handles])
        figure.legend(handles=handles, loc="outside upper left", ncols=columns)


def legend_columns(labels: Sequence[str]) -> int:
    """As many columns as fit the figure's width (filled from above, the first ones longest)."""
    for columns in range(len(labels), 1, -1):
        parts = np.array_split(np.array([len(label) for label in labels]), columns)
        if sum(int(part.max()) + HANDLE_CHARACTERS for part in parts) <= LINE_CHARACTERS:
            return columns
    return 1


def say_empty(axes: Axes, text: str, keep_y: bool = False) -> None:
    """A panel without data says so; it keeps its upright ticks where they belong to its neighbours too."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, wrap=True)
    axes.set_xticks([])
    if not keep_y:
        axes.set_yticks([])


def error_lengths(value: float, low: float, high: float, limit: float | None = None) -> Any:
    """Error bar lengths [2, 1] for matplotlib; a missing end has length 0, an open one reaches `limit`."""
    low = value if np.isnan(low) else low
    high = value if np.isnan(high) else high
    if np.isinf(high):
        high = value if limit is None else limit
    return np.array([[max(value - low, 0.0)], [max(high - value, 0.0)]])


def point(
    panel: Axes, x: Measure, y: Measure, look: RunStyle, label: str, limit: float | None = None, **more: Any
) -> None:
    """A run's marker at two measures, with both intervals; an open upper end of `y` reaches `limit`, `more` is passed
    to `Axes.errorbar`."""
    panel.errorbar(
        x.value,
        y.value,
        xerr=error_lengths(x.value, x.low, x.high),
        yerr=error_lengths(y.value, y.low, y.high, limit),
        fmt=look.marker,
        color=look.color,
        label=label,
        **more,
    )


def save(figure: Figure, svg: str | Path, png: str | Path) -> None:
    """Write the figure as SVG and as its PNG twin, each atomically and with the same bytes every time."""
    metadata: Mapping[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": "es2"},
        "png": {"Software": "es2"},
    }
    with style():
        for kind, path in (("svg", svg), ("png", png)):
            with atomic_write(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata[kind])
