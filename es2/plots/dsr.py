"""Defence success rate by attack and run: a dot with its interval, a row an attack (method.md §6, §7)."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2.names import SELF
from es2.plots.style import LIGHT, error_lengths, new_figure, run_legend, run_styles, say_empty, style
from es2.reporting import Study, attack_name, budget_attacks, rows, seeds

ORDER = (
    "direct",
    "prefill",
    "ablation",
    "ablation_random",
    "ablation_shuffled",
    "scav",
    "scav_random",
    "scav_shuffled",
)
WORST_CASES = {"worst_case": "worst over budgets", "worst_case_all": "worst of all"}
FITTED = ("", "base", "parent", "self")


def dsr_figure(dsr: pd.DataFrame, robustness: pd.DataFrame, study: Study) -> Figure:
    """A panel a harmful test, a row an attack and where it was fitted, a dot a run with its interval."""
    points = dot_rows(dsr, robustness, study)
    names = list(dict.fromkeys(points["row"]))
    runs = [run for run in study.runs if run in set(points["run"])]
    benchmarks = [b for b in study.harmful if b in set(points["benchmark"])]
    with style():
        figure, axes = new_figure(
            3.2 + max(1.35, 0.26 * len(runs) + 0.2) * max(len(names), 1),
            1,
            max(len(benchmarks), 1),
            sharey=True,
        )
        if points.empty:
            say_empty(axes[0, 0], "no verdicts")
        for panel, benchmark in zip(axes.flat, benchmarks, strict=False):
            _draw_panel(panel, points[points["benchmark"] == benchmark], names, runs, study)
            panel.set_title(study.label(benchmark))
            panel.set_xlabel("DSR: share refused")
        if names:
            axes[0, 0].set_yticks(range(len(names)), names)
            axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
            for panel in axes.flat:
                panel.tick_params(axis="y", length=0)
        run_legend(figure, study, runs)
    return figure


def dot_rows(dsr: pd.DataFrame, robustness: pd.DataFrame, study: Study) -> pd.DataFrame:
    """What the figure shows, in order: row (its name), run, seed, benchmark, value, low, high.

    The budget-free attacks come from `dsr.csv`, those over budgets at the budgets fixed beforehand from
    `robustness.csv` (their whole curves are a figure of their own), the worst case over several of
    these last.
    """
    cells = rows(dsr, study, split="test")
    cells = cells[cells["benchmark"].isin(study.harmful)]
    free = cells[cells["budget"].isna() & ~cells["attack"].isin(WORST_CASES)]
    free = free.rename(columns={"dsr": "value", "dsr_low": "low", "dsr_high": "high"})
    order = {attack: i for i, attack in enumerate([*ORDER, *sorted(set(free["attack"]) - set(ORDER))])}
    fitted = {name: i for i, name in enumerate(FITTED)}
    free = free.assign(a=free["attack"].map(order), f=free["fitted_on"].map(fitted)).sort_values(["a", "f"])
    free["row"] = [row_name(attack, on) for attack, on in zip(free["attack"], free["fitted_on"], strict=True)]
    fixed = rows(robustness, study, measure="dsr_at_budget")
    fixed = fixed[fixed["benchmark"].isin(study.harmful)]
    place = {attack: i for i, attack in enumerate(budget_attacks(robustness, study))}
    fixed = fixed.assign(a=fixed["attack"].map(place), f=fixed["fitted_on"].map(fitted))
    fixed = fixed.sort_values(["a", "f", "budget"])
    named = zip(fixed["attack"], fixed["fitted_on"], fixed["budget"], strict=True)
    fixed["row"] = [_at_budget(*one) for one in named]
    # The worst of one attack is that attack.
    worst = cells[cells["attack"].isin(WORST_CASES)].sort_values(["attack", "factor"]) if len(place) > 1 else cells[:0]
    told = zip(worst["attack"], worst["factor"], strict=True)
    worst = worst.assign(row=[f"{WORST_CASES[attack]},\n{factor:g} x the parent's" for attack, factor in told])
    worst = worst.rename(columns={"dsr": "value", "dsr_low": "low", "dsr_high": "high"})
    columns = ["row", "run", "seed", "benchmark", "value", "low", "high"]
    parts = [part[columns] for part in (free, fixed, worst) if len(part)]
    out = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return out.drop_duplicates(["row", "run", "seed", "benchmark"])


def _at_budget(attack: str, fitted_on: str, budget: float) -> str:
    source = "" if fitted_on == SELF else f", fitted on {fitted_on}"
    return f"{attack_name(attack)}{source}\nbudget {budget:.3g}"


def row_name(attack: str, fitted_on: str) -> str:
    """`SCAV, fitted on parent` and the like, in two lines."""
    name = attack_name(attack)
    if not fitted_on or "\n" in name:
        return name if not fitted_on or fitted_on == "self" else f"{name.splitlines()[0]}\n(control, {fitted_on})"
    return f"{name}, fitted\non {'itself' if fitted_on == 'self' else fitted_on}"


def _draw_panel(panel: Axes, points: pd.DataFrame, names: list[str], runs: list[str], study: Study) -> None:
    styles = run_styles(study)
    step = min(0.2, 0.84 / max(len(runs), 1))
    for k in range(len(names) - 1):
        panel.axhline(k + 0.5, color=LIGHT, lw=0.8, zorder=0)
    for run in runs:
        mine = points[points["run"] == run]
        for j, seed in enumerate(seeds(mine, run)):
            for row in mine[mine["seed"] == seed].itertuples():
                height = names.index(row.row) + step * (runs.index(run) - (len(runs) - 1) / 2)
                panel.errorbar(
                    row.value,
                    height,
                    xerr=error_lengths(row.value, row.low, row.high),
                    fmt=styles[run].marker,
                    color=styles[run].color,
                    ms=5,
                    elinewidth=1.4 if j == 0 else 0.5,
                    label=f"_{run}",
                    alpha=1.0 if j == 0 else 0.5,
                )
    panel.set_xlim(-0.02, 1.02)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "", "0.5", "", "1"])
    panel.grid(axis="x", color=LIGHT, lw=0.6)
    panel.set_axisbelow(True)
