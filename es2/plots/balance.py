"""The balance of refusing under the direct request: harmful requests refused against harmless ones refused."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from es2.plots.style import LIGHT, new_figure, plain_ticks, point, run_legend, run_styles, say_empty, style
from es2.reporting import HARMFUL_REFUSED, SAFE_REFUSED, Measure, Study, direct_cells, pooled, rows, seeds

Points = dict[tuple[str, int], tuple[Measure, Measure]]


def balance_points(dsr: pd.DataFrame, study: Study, safe: str, harmful: str) -> Points:
    """(run, seed) -> shares refused of a safe and of a harmful set under the direct request, where both were asked."""
    found: Points = {}
    for run in study.runs:
        for seed in seeds(rows(dsr, study), run):
            x, y = (pooled(direct_cells(dsr, study, run, seed, (name,)))["refusal"] for name in (safe, harmful))
            if x.known and y.known:
                found[run, seed] = (x, y)
    return found


def balance_figure(dsr: pd.DataFrame, study: Study) -> Figure:
    """A row a safe set, a column a harmful test, a cross a run; the field is where the targets of both are met."""
    safe = dict(zip((study.plain, study.look_dangerous), SAFE_REFUSED, strict=True))
    drawn: dict[str, None] = {}
    with style():
        figure, axes = new_figure(1.6 + 6.0 * len(safe), len(safe), max(len(study.harmful), 1), sharey=True)
        for panels, (name, most) in zip(axes, safe.items(), strict=True):
            panels[0].set_ylabel("direct DSR")
            for panel, harmful in zip(panels, study.harmful, strict=False):
                points = balance_points(dsr, study, name, harmful)
                drawn |= dict.fromkeys(run for run, _ in points)
                _draw(panel, points, most, study)
                panel.set_title(study.label(harmful))
                panel.set_xlabel(f"{study.label(name)} requests refused")
        run_legend(figure, study, [run for run in study.runs if run in drawn])
    return figure


def _draw(panel: Axes, points: Points, most: float, study: Study) -> None:
    panel.add_patch(Rectangle((0, HARMFUL_REFUSED), most, 1 - HARMFUL_REFUSED, color=LIGHT, lw=0, zorder=0))
    panel.set_ylim(-0.03, 1.03)
    if not points:
        say_empty(panel, "not measured", keep_y=True)
        return
    for (run, seed), (safe, harmful) in points.items():
        look = run_styles(study)[run]
        first = seed == min(other for name, other in points if name == run)
        point(panel, safe, harmful, look, f"_{run}_{seed}", ms=6 if first else 4, elinewidth=1.1)
    panel.set_xlim(-0.01, 1.05 * max(most, *(safe.high for safe, _ in points.values())))
    plain_ticks(panel.xaxis)
