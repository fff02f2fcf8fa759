"""Harmful and safe test embeddings in two dimensions, every run on the same axes (method.md §9).

Axis 1 is the difference of the two class means in the parent run, axis 2 the first principal component of
what is left, both fitted once per layer on the parent's attack split and then applied to every run's test
prompts, so that panels may be compared. Lengths are in units of the parent's distance between the class
means.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from safetensors import safe_open

from es2.plots.style import HARMFUL, LIGHT, LOOK_DANGEROUS, SAFE, new_figure, style
from es2.reporting import Study

Array = npt.NDArray[np.float64]
COLUMNS = 4
GROUPS = ((SAFE, "o", "plain harmless"), (LOOK_DANGEROUS, "^", "look dangerous"), (HARMFUL, "x", "harmful"))


@dataclass(frozen=True)
class Axes2D:
    """Two orthonormal directions [2, d], the origin [d], and the unit of length."""

    directions: Array
    origin: Array
    unit: float

    def project(self, embeddings: Array) -> Array:
        """Coordinates [n, 2] of embeddings [n, d], in units of the parent's class distance."""
        projected: Array = (embeddings - self.origin) @ self.directions.T / self.unit
        return projected

    def variance_explained(self, embeddings: Array) -> Array:
        """The share of the embeddings' variance that each axis carries, [2]."""
        centred = embeddings - embeddings.mean(axis=0)
        total = float((centred**2).sum())
        share: Array = ((centred @ self.directions.T) ** 2).sum(axis=0) / (total or 1.0)
        return share


@dataclass(frozen=True)
class Cloud:
    """The test embeddings of one run at one layer, [n, d], and each prompt's group: 0 plain, 1 look, 2
    harmful.
    """

    run: str
    layer: int
    embeddings: Array
    group: npt.NDArray[np.int64]


def read_layer(path: str | Path, layer: int) -> tuple[list[str], Array]:
    """Prompt ids and embeddings [n, d] of one layer, without reading the other layers of the file."""
    with safe_open(str(path), framework="numpy") as stream:
        ids = json.loads(stream.metadata()["prompt_ids"])
        return ids, np.asarray(stream.get_slice("embeddings")[:, layer, :][:].squeeze(), dtype=np.float64)


def fit_axes(harmful: Array, safe: Array) -> Axes2D:
    """The two axes from the parent's embeddings of the attack split, [n_harmful, d] and [n_safe, d]."""
    difference = harmful.mean(axis=0) - safe.mean(axis=0)
    unit = float(np.linalg.norm(difference))
    first = difference / (unit or 1.0)
    both = np.concatenate([harmful, safe])
    centred = both - both.mean(axis=0)
    rest = centred - np.outer(centred @ first, first)
    second = np.linalg.svd(rest, full_matrices=False)[2][0]
    second = second * (1.0 if second[np.abs(second).argmax()] > 0 else -1.0)
    origin = (harmful.mean(axis=0) + safe.mean(axis=0)) / 2
    return Axes2D(np.stack([first, second]), origin, unit or 1.0)


def load_clouds(
    embeddings: Mapping[str, str | Path], prompts: pd.DataFrame, study: Study, layers: Sequence[int]
) -> tuple[dict[int, Axes2D], list[Cloud]]:
    """Axes by layer and the test clouds by layer and run, from the runs' embedding files.

    `prompts`: prompt_id, set, label, split of every set. A base without a trained parent serves as its own
    parent.
    """
    parent = study.parent if study.parent in embeddings else next(iter(embeddings))
    axes, clouds = {}, []
    for layer in layers:
        ids, values = read_layer(embeddings[parent], layer)
        rows = _aligned(prompts, ids)
        attack = (rows["split"] == "attack").to_numpy()
        harmful = (rows["label"] == "harmful").to_numpy()
        axes[layer] = fit_axes(values[attack & harmful], values[attack & ~harmful])
        for run in [run for run in study.runs if run in embeddings]:
            ids, values = read_layer(embeddings[run], layer)
            rows = _aligned(prompts, ids)
            test = (rows["split"] == "test").to_numpy()
            look = (rows["set"] == study.look_dangerous).to_numpy()
            group = np.where((rows["label"] == "harmful").to_numpy(), 2, np.where(look, 1, 0))
            clouds.append(Cloud(run, layer, values[test], group[test]))
    return axes, clouds


def _aligned(prompts: pd.DataFrame, ids: list[str]) -> pd.DataFrame:
    return prompts.drop_duplicates("prompt_id").set_index("prompt_id").reindex(ids)


def projection_figure(axes: Mapping[int, Axes2D], clouds: Sequence[Cloud], study: Study) -> Figure:
    """A panel a run and layer, the same limits everywhere, each with the variance that its two axes carry."""
    runs = list(dict.fromkeys(cloud.run for cloud in clouds))
    columns = min(COLUMNS, len(runs))
    per_layer = -(-len(runs) // columns)
    points = [axes[cloud.layer].project(cloud.embeddings) for cloud in clouds]
    low, high = np.concatenate(points).min(axis=0), np.concatenate(points).max(axis=0)
    pad = 0.06 * (high - low)
    with style():
        figure, grid = new_figure(
            2.8 + 4.3 * per_layer * len(axes), per_layer * len(axes), columns, sharex=True, sharey=True
        )
        for panel in grid.flat:
            panel.set_visible(False)
        for cloud, xy in zip(clouds, points, strict=True):
            i = runs.index(cloud.run)
            row = list(axes).index(cloud.layer) * per_layer + i // columns
            panel = grid[row, i % columns]
            _draw_cloud(panel, cloud, xy, axes[cloud.layer].variance_explained(cloud.embeddings))
            panel.set_title(study.label(cloud.run) if row % per_layer == i // columns and row < per_layer else "")
            if i % columns == 0:
                panel.set_ylabel(f"layer {cloud.layer}\naxis 2")
        grid[0, 0].set_xlim(low[0] - pad[0], high[0] + pad[0])
        grid[0, 0].set_ylim(low[1] - pad[1], high[1] + 4 * pad[1])
        figure.supxlabel("axis 1: difference of the class means in the parent (its length there = 1)")
        _group_legend(figure, clouds)
    return figure


def _draw_cloud(panel: Axes, cloud: Cloud, xy: Array, explained: Array) -> None:
    panel.set_visible(True)
    panel.axvline(0, color=LIGHT, lw=0.8, zorder=0)
    for code, (color, marker, name) in enumerate(GROUPS):
        here = xy[cloud.group == code]
        if len(here):
            panel.scatter(here[:, 0], here[:, 1], s=9, marker=marker, color=color, alpha=0.55, lw=0.8, label=name)
    panel.annotate(
        f"{explained[0]:.0%} + {explained[1]:.0%}",
        (0.98, 0.98),
        xycoords="axes fraction",
        ha="right",
        va="top",
    )


def _group_legend(figure: Figure, clouds: Sequence[Cloud]) -> None:
    present = {int(code) for cloud in clouds for code in np.unique(cloud.group)}
    handles = [
        Line2D([], [], color=color, marker=marker, ls="", label=name)
        for code, (color, marker, name) in enumerate(GROUPS)
        if code in present
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
