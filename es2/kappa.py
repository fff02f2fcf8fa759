"""Cohen's kappa of two who named the same answers, with an interval over prompts."""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]
RESAMPLES = 1000


def kappa(cell: pd.DataFrame) -> float:
    """Kappa of the columns `label` and `verdict`; `prompt` says whose answers they are."""
    return float(_kappa(_confusions(cell).sum(axis=0)))


def kappas(cell: pd.DataFrame, seed: int) -> tuple[float, float, float]:
    """Kappa of the columns `label` and `verdict`, and the ends of its 95 % interval.

    The interval is a bootstrap over the column `prompt`: the answers to one prompt stay together. Not numbers where
    nothing was named.
    """
    if cell.empty:
        return math.nan, math.nan, math.nan
    each = _confusions(cell)
    weights = np.random.default_rng(seed).multinomial(len(each), np.full(len(each), 1 / len(each)), size=RESAMPLES)
    low, high = np.percentile(_kappa(np.einsum("rp,pij->rij", weights, each)), [2.5, 97.5])
    return float(_kappa(each.sum(axis=0))), float(low), float(high)


def _confusions(cell: pd.DataFrame) -> Array:
    """For each prompt how often each label met each verdict, over the same K names: [P, K, K]."""
    names = sorted({*cell["label"], *cell["verdict"]})
    code = {name: place for place, name in enumerate(names)}
    prompts, where = np.unique(cell["prompt"], return_inverse=True)
    each = np.zeros((len(prompts), len(names), len(names)))
    np.add.at(each, (where, cell["label"].map(code), cell["verdict"].map(code)), 1.0)
    return each


def _kappa(tables: Array) -> Array:
    """Cohen's kappa [...] of confusion tables [..., K, K] over the same K names; 1 where all stands in one cell."""
    total = tables.sum(axis=(-2, -1))
    observed = np.trace(tables, axis1=-2, axis2=-1) / total
    chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1) / total**2
    return np.where(chance < 1, (observed - chance) / np.where(chance < 1, 1 - chance, 1), 1.0)
