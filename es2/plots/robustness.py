"""The robustness curve: refusal, compliance, degenerate answers against attack budget (method.md §6)."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2.plots.style import (
    GREY,
    error_lengths,
    new_figure,
    plain_ticks,
    run_legend,
    run_styles,
    say_empty,
    style,
)
from es2.reporting import SHARES, Measure, Study, attack_name, budget_attacks, curve, half_budget, rows, seeds

BUDGET_LABEL = "attack budget: RMS of |step| / |e| over the edited layers (0 = direct request)"
Curves = dict[str, dict[int, pd.DataFrame]]


def robustness_figure(dsr: pd.DataFrame, robustness: pd.DataFrame, study: Study) -> Figure:
    """Three panels, refusal | compliance | degenerate, against relative budget on the harmful tests pooled.

    A row an attack; a line a run with Wilson bands, thin ones its other seeds; the half-compliance budgets of the first
    seed stand near the 0.5 line of the compliance panel with their intervals, a run without one says so in the legend.
    A thin dotted line is a random push with the same recorded norms, where the table has one.
    """
    curves = {attack: _curves(dsr, study, attack) for attack in budget_attacks(robustness, study)}
    curves = {attack: lines for attack, lines in curves.items() if lines}
    never: dict[str, list[str]] = {}
    with style():
        figure, axes = new_figure(2.4 + 5.8 * max(len(curves), 1), max(len(curves), 1), 3, sharey=True, sharex="row")
        for panel, share in zip(axes[0], SHARES, strict=True):
            panel.set_title(share)
            plain_ticks(panel.xaxis)
            if not curves:
                say_empty(panel, "no adaptive\ncurve")
        for panels, (attack, lines) in zip(axes, curves.items(), strict=False):
            name = attack_name(attack) if len(curves) > 1 else ""
            halves = {run: half_budget(robustness, dsr, study, run, min(seen), attack) for run, seen in lines.items()}
            _draw_attack(panels, lines, _curves(dsr, study, f"{attack}_random"), halves, study)
            for run in (run for run, half in halves.items() if half.censored):
                others = [half_budget(robustness, dsr, study, run, seed, attack) for seed in lines[run]]
                which = "" if all(half.censored for half in others) else f" at seed {min(lines[run])}"
                never.setdefault(run, []).append(which + (f" under {name}" if name else ""))
            panels[0].set_ylabel(f"{name}\nshare of answers".strip())
            panels[0].set_xlim(0, _largest(lines) * 1.03)
        if curves:
            axes[0, 0].set_ylim(-0.02, 1.02)
            for panel in axes.flat:
                plain_ticks(panel.xaxis)
        figure.supxlabel(BUDGET_LABEL)
        drawn = {run for lines in curves.values() for run in lines}
        notes = {run: f"(never half{' and'.join(attacks)})" for run, attacks in never.items()}
        run_legend(figure, study, [run for run in study.runs if run in drawn], notes=notes)
    return figure


def _draw_attack(
    panels: Sequence[Axes], curves: Curves, controls: Curves, halves: dict[str, Measure], study: Study
) -> None:
    """One attack's row of panels."""
    for panel, share in zip(panels, SHARES, strict=True):
        panel.axhline(0.5, color=GREY, lw=0.8, ls=":", zorder=0)
        for run, lines in curves.items():
            _draw_run(panel, study, run, share, lines, controls.get(run, {}))
    _mark_half_budgets(panels[1], study, halves, _largest(curves))


def _largest(curves: Curves) -> float:
    """The largest budget of an attack."""
    return max(float(line["budget"].max()) for lines in curves.values() for line in lines.values())


def _curves(dsr: pd.DataFrame, study: Study, attack: str) -> Curves:
    """The curves of the runs that were attacked so, by run in the study's order and by seed."""
    table = rows(dsr, study, attack=attack)
    found = {run: {seed: curve(dsr, study, run, seed, attack) for seed in seeds(table, run)} for run in study.runs}
    drawn = {run: {seed: line for seed, line in lines.items() if len(line)} for run, lines in found.items()}
    return {run: lines for run, lines in drawn.items() if lines}


def _draw_run(
    panel: Axes,
    study: Study,
    run: str,
    share: str,
    lines: dict[int, pd.DataFrame],
    controls: dict[int, pd.DataFrame],
) -> None:
    look = run_styles(study)[run]
    first = min(lines)
    for seed, line in lines.items():
        main = seed == first
        panel.plot(
            line["budget"],
            line[share],
            color=look.color,
            ls=look.dashes,
            marker=look.marker if main else "",
            lw=1.8 if main else 0.8,
            markersize=4.5,
            label=run if main else f"_{run}_{seed}",
        )
    band = lines[first]
    panel.fill_between(band["budget"], band[f"{share}_low"], band[f"{share}_high"], color=look.color, alpha=0.14, lw=0)
    if first in controls:
        line = controls[first]
        panel.plot(line["budget"], line[share], color=look.color, ls=":", lw=1.0, label=f"_{run}_random")


def _mark_half_budgets(panel: Axes, study: Study, halves: dict[str, Measure], largest: float) -> None:
    """A hollow marker with its interval for each run that falls, above and below the 0.5 line by turns."""
    right = largest * 1.03
    for i, (run, half) in enumerate(halves.items()):
        if half.censored or not half.known:
            continue
        look = run_styles(study)[run]
        height = 0.5 + 0.035 * ((i + 1) // 2) * (-1) ** i
        panel.errorbar(
            half.value,
            height,
            xerr=error_lengths(half.value, half.low, half.high, right),
            fmt=look.marker,
            color=look.color,
            mfc="white",
            mew=1.8,
            ms=6,
            elinewidth=2.2,
            capsize=3,
            zorder=5,
            label=f"_half_{run}",
        )
        if math.isinf(half.high):
            panel.plot(right, height, marker=">", color=look.color, clip_on=False, ms=5, label=f"_open_{run}")
