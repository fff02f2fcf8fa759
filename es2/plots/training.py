"""Training curves: parts of the loss, distance, held-out KL and norm ratio against the step."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from es2.plots.style import GREY, new_figure, run_legend, run_styles, say_empty, style
from es2.reporting import Study, rows, seeds, shown_runs

PANELS = (
    ("loss", "loss", "total"),
    ("separation", "separation loss", r"$L_\mathrm{sep}$"),
    ("kl", "KL, safe prompts, in training", "nats / token"),
    ("kl_refusals", "KL, refusals, in training", "nats / token"),
    ("drift", "drift of safe embeddings", "relative"),
    ("kl_heldout", "KL, held-out safe prompts", "nats / token"),
    ("distance_ratio", "distance, in training", "ratio to parent"),
    ("norm_ratio", "norm, held-out prompts", "ratio to parent"),
)
MEASURED_NOW_AND_THEN = ("kl_heldout", "norm_ratio")
SMOOTH = 5


def training_figure(training: pd.DataFrame, study: Study) -> Figure:
    """A panel a column of `training.csv` that has numbers, a line a run against the optimizer step.

    Columns written at every step are drawn thin, with their running mean over five steps on top; the held-out
    ones as a marker at each evaluation.
    """
    table = rows(training, study)
    panels = [panel for panel in PANELS if panel[0] in table and table[panel[0]].notna().any()]
    runs = shown_runs(table, study)
    n_rows = max((len(panels) + 1) // 2, 1)
    with style():
        figure, axes = new_figure(1.8 + 4.0 * n_rows, n_rows, 2, sharex=True)
        for panel, (column, title, unit) in zip(axes.flat, panels, strict=False):
            for run in runs:
                _draw_run(panel, table, study, run, column)
            panel.set_title(title)
            panel.set_ylabel(unit)
            if column in ("distance_ratio", "norm_ratio"):
                panel.axhline(1.0, color=GREY, lw=0.8, ls=":", zorder=0)
        for panel in list(axes.flat)[max(len(panels), 1) :]:
            panel.set_visible(False)
        for panel in axes.flat[max(len(panels) - 2, 0) : len(panels)]:
            panel.set_xlabel("optimizer step")
            panel.tick_params(labelbottom=True)
        if not panels:
            say_empty(axes[0, 0], "no run was trained")
        run_legend(figure, study, runs, markers=False)
    return figure


def _draw_run(panel: Axes, table: pd.DataFrame, study: Study, run: str, column: str) -> None:
    look = run_styles(study)[run]
    for i, seed in enumerate(seeds(table, run)):
        line = table[(table["run"] == run) & (table["seed"] == seed)].dropna(subset=[column]).sort_values("step")
        line = line[np.isfinite(line[column].astype(float))]
        if line.empty:
            continue
        width = 1.8 if i == 0 else 0.8
        name = run if i == 0 else f"_{run}_{seed}"
        if column in MEASURED_NOW_AND_THEN:
            panel.plot(
                line["step"],
                line[column],
                color=look.color,
                ls=look.dashes,
                lw=width,
                marker=look.marker,
                markersize=4.5,
                label=name,
            )
            continue
        panel.plot(line["step"], line[column], color=look.color, lw=0.6, alpha=0.4, label=f"_raw_{run}_{seed}")
        smooth = line[column].rolling(SMOOTH, min_periods=1, center=True).mean()
        panel.plot(line["step"], smooth, color=look.color, ls=look.dashes, lw=width, label=name)
