"""Dose and response: how far a run separated, and what that buys under the adaptive attack."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2.plots.style import GREY, new_figure, point, run_legend, run_styles, say_empty, style
from es2.reporting import Measure, Study, half_budget, mean_measure, seeds, separation


@dataclass(frozen=True)
class Point:
    """One run at one seed: achieved separation relative to the parent, and the half-compliance budget."""

    run: str
    seed: int
    dose: Measure
    response: Measure


def dose_points(
    separability: pd.DataFrame,
    robustness: pd.DataFrame,
    dsr: pd.DataFrame,
    study: Study,
    layers: Mapping[tuple[str, int], Sequence[int]],
) -> list[Point]:
    """The points of the runs that were both analysed and attacked.

    layers: where each run was trained at each seed. Dose: test centroid distance over within-class spread, mean over
    these layers, divided by the parent's value there.
    """
    points = []
    for run in study.runs:
        for seed in seeds(robustness, run):
            response = half_budget(robustness, dsr, study, run, seed)
            dose = relative_separation(separability, study, run, seed, layers.get((run, seed), ()))
            if response.known and dose.known:
                points.append(Point(run, seed, dose, response))
    return points


def relative_separation(
    separability: pd.DataFrame, study: Study, run: str, seed: int, layers: Sequence[int]
) -> Measure:
    """Centroid distance over within-class spread at the layers, relative to the parent's own value there."""
    metric = "centroid_over_spread"
    own = mean_measure([separation(separability, study, run, seed, metric, layer) for layer in layers])
    parent = mean_measure([separation(separability, study, study.parent, seed, metric, layer) for layer in layers])
    if not parent.known or parent.value == 0:
        return Measure()
    return Measure(own.value / parent.value, own.low / parent.value, own.high / parent.value)


def dose_response_figure(points: Sequence[Point], study: Study) -> Figure:
    """Half-compliance budget against achieved separation, a named point a run, both with intervals.

    A run that never fell stands at the largest budget tried as a hollow mark with an arrow: its budget is
    higher.
    """
    with style():
        figure, grid = new_figure(9.5)
        panel = grid[0, 0]
        if not points:
            say_empty(panel, "no run was both analysed and attacked")
            return figure
        _draw_points(panel, points, study)
        panel.axvline(1.0, color=GREY, lw=0.8, ls=":", zorder=0)
        panel.set_xlabel("achieved separation: centroid distance / spread, parent = 1")
        panel.set_ylabel("half-compliance budget (relative)")
        panel.set_ylim(bottom=0)
        run_legend(figure, study, [run for run in study.runs if run in {p.run for p in points}])
    return figure


def _draw_points(panel: Axes, points: Sequence[Point], study: Study) -> None:
    styles = run_styles(study)
    top = max(max(p.response.value, p.response.high if math.isfinite(p.response.high) else 0.0) for p in points)
    for one in points:
        look, face = styles[one.run], "white" if one.response.censored else styles[one.run].color
        label = f"_{one.run}_{one.seed}"
        point(panel, one.dose, one.response, look, label, ms=7, elinewidth=1.2, mfc=face, limit=top * 1.08)
        if math.isinf(one.response.high):
            panel.plot(one.dose.value, top * 1.08, marker="^", color=look.color, ms=6, clip_on=False)
