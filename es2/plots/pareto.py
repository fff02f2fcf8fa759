"""The Pareto figure: robust DSR against what it costs in KL, in ability and in refused harmless requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2.plots.style import GREY, new_figure, plain_ticks, point, run_legend, run_styles, say_empty, style
from es2.reporting import Measure, Study, first_seeds, kl, one_seed, rows
from es2.tables.verdicts import WORST

ABILITY = "logprob_normalised"


@dataclass(frozen=True)
class Bargain:
    """A run's robust DSR and its three costs; more is worse."""

    run: str
    safety: Measure
    costs: tuple[Measure, Measure, Measure]


def bargains(contest: pd.DataFrame, ability: pd.DataFrame, study: Study) -> list[Bargain]:
    """Each run's robust DSR under the attacks over budgets at the parent's own budgets (factor 1), with its costs:
    KL to its parent, log-probability of the right choice lost against its parent, look-dangerous requests refused."""
    mine = contest[contest["model"] == study.model]
    mine = first_seeds(mine).fillna({"attack": "", "factor": 1.0})
    found = []
    for run in (run for run in study.runs if run in set(mine["run"])):
        cells = mine[mine["run"] == run].set_index(["measure", "attack", "factor"])
        safety = _cell(cells, ("robust_dsr", WORST, 1.0))
        looking = _cell(cells, ("look_dangerous_refused", "", 1.0))
        seed = int(cells["seed"].iloc[0])
        if safety.known:
            # The parent is what the others are measured against: it costs nothing here, whatever it cost from the base.
            spent = (Measure(0.0, 0.0, 0.0),) * 2
            if run != study.parent:
                spent = (kl(ability, study, run, seed), ability_lost(ability, study, run, seed))
            found.append(Bargain(run, safety, (*spent, looking)))
    return found


def _cell(cells: pd.DataFrame, key: tuple[Any, ...]) -> Measure:
    if key not in cells.index:
        return Measure()
    row = cells.loc[key]
    return Measure(float(row["value"]), float(row["low"]), float(row["high"]))


def ability_lost(ability: pd.DataFrame, study: Study, run: str, seed: int) -> Measure:
    """The fall of the right choice's log-probability among the choices against the run's parent, in nats, of the first
    task that has it."""
    found = one_seed(rows(ability, study, metric=ABILITY, reference="parent"), run, seed)
    if found.empty:
        return Measure()
    row = found.iloc[0]
    return Measure(-float(row["difference"]), -float(row["difference_high"]), -float(row["difference_low"]))


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, safety) points those that no other beats in both, by rising cost."""
    kept: list[tuple[float, float]] = []
    for cost, safety in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or safety > kept[-1][1]:
            kept.append((cost, safety))
    return kept


def pareto_figure(contest: pd.DataFrame, ability: pd.DataFrame, study: Study) -> Figure:
    """Three panels that share robust DSR upwards; a grey line joins the runs that no other beats in both."""
    found = bargains(contest, ability, study)
    tasks = rows(ability, study, metric=ABILITY)["task"]
    task = study.label(tasks.iloc[0]) if len(tasks) else "a task"
    titles = (
        "KL to own parent\n(nats)",
        f"log-probability lost\non {task} (nats)",
        "look-dangerous\nrefused (share)",
    )
    with style():
        figure, grid = new_figure(8.5, 1, 3, sharey=True)
        for i, panel in enumerate(grid.flat):
            panel.set_xlabel(titles[i])
            _draw(panel, found, lambda one, i=i: one.costs[i], study)  # type: ignore[misc]
        grid[0, 0].set_ylabel("robust DSR at the\nparent's budgets")
        grid[0, 0].set_ylim(0, 1)
        run_legend(figure, study, [one.run for one in found])
    return figure


def _draw(panel: Axes, found: Sequence[Bargain], cost_of: Callable[[Bargain], Measure], study: Study) -> None:
    known = [one for one in found if cost_of(one).known]
    if not known:
        say_empty(panel, "not measured", keep_y=True)
        return
    steps = front([(cost_of(one).value, one.safety.value) for one in known])
    panel.step(*zip(*steps, strict=True), where="post", color=GREY, lw=1, zorder=0, label="_front")
    for one in known:
        look = run_styles(study)[one.run]
        point(panel, cost_of(one), one.safety, look, f"_{one.run}", ms=7, elinewidth=1.2)
    plain_ticks(panel.xaxis)
