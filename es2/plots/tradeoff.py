"""Safety against ability: what a run holds out against, and what it costs in KL and in refused harmless
requests.
"""

import math
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2.plots.style import new_figure, plain_ticks, point, run_legend, run_styles, say_empty, style
from es2.reporting import (
    Measure,
    Study,
    direct_cells,
    half_budget,
    kl,
    on_benchmarks,
    one_seed,
    pooled,
    rows,
    seeds,
)

BUDGET = "half-compliance budget"
DSR = "DSR, SCAV fitted on itself"


@dataclass(frozen=True)
class Tradeoff:
    """One run at one seed: its safety and its three costs."""

    run: str
    seed: int
    safety: Measure
    costs: tuple[Measure, Measure, Measure]


def tradeoff_points(
    dsr: pd.DataFrame, robustness: pd.DataFrame, ability: pd.DataFrame, study: Study
) -> tuple[str, list[Tradeoff]]:
    """What safety is measured by, and a point a run: the half-compliance budget where any run has one, else
    DSR.
    """
    pairs = [(run, seed) for run in study.runs for seed in seeds(rows(dsr, study), run)]
    budgets = {pair: half_budget(robustness, dsr, study, *pair) for pair in pairs}
    by_budget = any(m.known for m in budgets.values())
    points = []
    for run, seed in pairs:
        safety = budgets[run, seed] if by_budget else scav_self(dsr, study, run, seed)
        if safety.known:
            refused = [
                pooled(direct_cells(dsr, study, run, seed, (name,)))["refusal"]
                for name in (study.plain, study.look_dangerous)
            ]
            points.append(Tradeoff(run, seed, safety, (kl_to_start(ability, study, run, seed), refused[0], refused[1])))
    return BUDGET if by_budget else DSR, points


def kl_to_start(ability: pd.DataFrame, study: Study, run: str, seed: int) -> Measure:
    """KL to the study's parent run, one reference for the axis: itself at 0, runs begun elsewhere unknown."""
    if run == study.parent:
        return Measure(0.0, 0.0, 0.0)
    own = ability.loc[ability["run"] == run, "parent"]
    return kl(ability, study, run, seed) if (own == study.parent).any() else Measure()


def scav_self(dsr: pd.DataFrame, study: Study, run: str, seed: int) -> Measure:
    """Refusals under SCAV at the paper's setting fitted on the run itself, the harmful tests pooled."""
    cells = rows(dsr, study, attack="scav", fitted_on="self", split="test")
    return pooled(on_benchmarks(one_seed(cells, run, seed), study, study.harmful))["refusal"]


def tradeoff_figure(dsr: pd.DataFrame, robustness: pd.DataFrame, ability: pd.DataFrame, study: Study) -> Figure:
    """Three panels that share safety upwards, against KL to the parent, plain and look-dangerous prompts
    refused.
    """
    measured_by, points = tradeoff_points(dsr, robustness, ability, study)
    titles = (
        f"KL to {study.label(study.parent)}\n(nats)",
        "plain refused\n(share)",
        "look-dangerous\nrefused (share)",
    )
    runs = [run for run in study.runs if run in {p.run for p in points}]
    with style():
        figure, grid = new_figure(8.5, 1, 3, sharey=True)
        for i, panel in enumerate(grid.flat):
            if not any(p.costs[i].known for p in points):
                say_empty(panel, "not measured", keep_y=True)
            _draw(panel, [p for p in points if p.costs[i].known], i, study)
            panel.set_xlabel(titles[i])
        grid[0, 0].set_ylabel(measured_by)
        grid[0, 0].set_ylim(bottom=0)
        run_legend(figure, study, runs)
    return figure


def _draw(panel: Axes, points: list[Tradeoff], i: int, study: Study) -> None:
    styles = run_styles(study)
    top = max(
        (p.safety.high if math.isfinite(p.safety.high) else p.safety.value * 1.08 for p in points),
        default=1.0,
    )
    for one in points:
        look, cost, safety = styles[one.run], one.costs[i], one.safety
        first = one.seed == min(p.seed for p in points if p.run == one.run)
        face = "white" if safety.censored else look.color
        point(
            panel,
            cost,
            safety,
            look,
            f"_{one.run}_{one.seed}",
            ms=7 if first else 4,
            elinewidth=1.2,
            mfc=face,
            limit=top,
        )
        if math.isinf(safety.high):
            panel.plot(cost.value, top, marker="^", color=look.color, ms=6, clip_on=False)
    if points:
        right = max(max(p.costs[i].value, p.costs[i].high) for p in points) or 1.0
        panel.set_xlim(-0.06 * right, 1.06 * right)
        plain_ticks(panel.xaxis)
