"""Separability by layer: AUROC with its baselines, d', centroid distance over spread, norm ratio (method.md
§9).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from es2.plots.style import GREY, LIGHT, new_figure, run_legend, run_styles, say_empty, style
from es2.reporting import Study, rows, seeds, shown_runs

PANELS = (
    ("auroc", "probe AUROC", "AUROC"),
    ("d_prime", "d' along the probe", "d' (pooled s.d.)"),
    ("centroid_over_spread", "centroid distance over spread", "distance / spread"),
    ("norm_ratio_to_base", "norm of the embeddings", "norm / base norm"),
)
BASELINES = (
    ("auroc_bag_of_words", "bag of words", (0, (5, 2))),
    ("auroc_length", "length alone", (0, (1.2, 1.5))),
)


def separability_figure(
    separability: pd.DataFrame, study: Study, changed: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> Figure:
    """Small multiples over layers on test prompts, a line a run with its bootstrap band.

    `changed`: the layers at which each run's training changes states, at the first seed; thin upright lines mark them
    where they are the same for all.
    """
    table = rows(separability, study, split="test")
    found = {tuple(layers) for layers in changed.values()}
    layers = found.pop() if len(found) == 1 else ()
    runs = shown_runs(table, study)
    with style():
        figure, axes = new_figure(13.0, 2, 2, sharex=True)
        for panel, (metric, title, unit) in zip(axes.flat, PANELS, strict=True):
            for layer in layers:
                panel.axvline(layer, color=LIGHT, lw=1.2, zorder=0)
            _draw_metric(panel, table, study, runs, metric)
            panel.set_title(title)
            panel.set_ylabel(unit)
        _draw_baselines(axes[0, 0], table)
        axes[1, 1].axhline(1.0, color=GREY, lw=0.8, ls=":", zorder=0)
        for panel in axes[1]:
            panel.set_xlabel("layer (after block k)")
        marked = [Line2D([], [], color=LIGHT, lw=1.6, label="trained layers")] if layers else []
        run_legend(figure, study, runs, markers=False, extra=marked)
    return figure


def _draw_metric(panel: Axes, table: pd.DataFrame, study: Study, runs: list[str], metric: str) -> None:
    styles = run_styles(study)
    part = table[(table["metric"] == metric) & (table["layer"] >= 0)]
    if part.empty:
        say_empty(panel, "not measured")
        return
    for run in runs:
        for i, seed in enumerate(seeds(part, run)):
            line = part[(part["run"] == run) & (part["seed"] == seed)].sort_values("layer")
            panel.plot(
                line["layer"],
                line["value"],
                color=styles[run].color,
                ls=styles[run].dashes,
                lw=1.8 if i == 0 else 0.8,
                label=run if i == 0 else f"_{run}_{seed}",
            )
            if i == 0:
                panel.fill_between(line["layer"], line["low"], line["high"], color=styles[run].color, alpha=0.15, lw=0)


def _draw_baselines(panel: Axes, table: pd.DataFrame) -> None:
    """What length alone and a bag of words reach, which need no layer: a dashed line each with its name on
    it.
    """
    floor = 1.0
    for metric, name, dashes in BASELINES:
        found = table.loc[table["metric"] == metric, "value"].dropna()
        if found.empty:
            continue
        value = float(found.iloc[0])
        floor = min(floor, value)
        panel.axhline(value, color=GREY, lw=1.2, ls=dashes, label=f"_{metric}")
        panel.annotate(
            name,
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            color=GREY,
        )
    lowest = min(floor, panel.get_ylim()[0])
    panel.set_ylim(lowest - 0.16 * (1.01 - lowest), 1.01)
