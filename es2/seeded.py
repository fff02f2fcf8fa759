"""Statistics over several trainings: prompts and trainings are both drawn (method.md section 7)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from es2.half_budget import (
    HalfBudgetRatio,
    checked_curve,
    half_budgets,
    ratio_of_halves,
)
from es2.statistics import RESAMPLES, Array, PairedDifference, cluster_index, cluster_sums, percentile_interval

Counts = npt.NDArray[np.uint16]
RARE = 20
PARTS = 20
"""Where fewer than `RARE` resamples lie on the far side of zero, `PARTS` times as many are drawn for the p value:
among a thousand comparisons Holm asks for a p of some hundred-thousandths."""


def seeded_difference(
    differences: npt.ArrayLike,
    clusters: Sequence[Any] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Mean of paired differences [S, n] over S trainings and n prompts, both drawn anew in every resample.

    The design is crossed: every training met the same prompts, so that a resample draws trainings and clusters of
    prompts independently (a bootstrap over both levels; Owen 2007, "The pigeonhole bootstrap"). The p value is twice
    the smaller share of resamples on either side of zero, of more of them where that is rare. `n` counts prompts. With
    few trainings the interval is still narrow for what it claims: S draws cannot show how rare a bad one is.
    """
    table = np.asarray(differences, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"differences of trainings must have the shape [S, n], not {table.shape}")
    totals = _totals(table[:, :, None], clusters)
    means = _means(totals, n_resamples, seed)[:, 0]
    interval = percentile_interval(means)
    sides = _sides(means)
    if sides[2] and sides.min() < RARE:
        sides = sides + sum(_sides(_means(totals, n_resamples, seed, part)[:, 0]) for part in range(1, PARTS))
    p = min(1.0, 2 * (1 + sides[:2].min()) / (1 + sides[2])) if sides[2] else np.nan
    return PairedDifference(interval.value, interval.low, interval.high, p, int(np.isfinite(table).any(axis=0).sum()))


def seeded_means(tables: Array, clusters: Sequence[Any] | None, n_resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Means [1 + n_resamples, B] of `tables` [S, n, B] over trainings and prompts: the data's own, then resamples'.

    See `seeded_difference`. NaN entries are left out.
    """
    return _means(_totals(tables, clusters), n_resamples, seed)


def _sides(means: Array) -> Array:
    """Of the resamples of `means` [1 + R] how many are at most zero, at least zero, and there at all."""
    draws = means[1:][np.isfinite(means[1:])]
    return np.array([(draws <= 0).sum(), (draws >= 0).sum(), len(draws)])


def _totals(tables: Array, clusters: Sequence[Any] | None) -> tuple[Array, Array]:
    """Sums and counts [S, clusters, B] of the entries of `tables` [S, n, B] that are not NaN."""
    index = cluster_index(clusters, tables.shape[1])
    sums, counts = zip(*(cluster_sums(table, index) for table in tables), strict=True)
    return np.stack(sums), np.stack(counts)


def _means(totals: tuple[Array, Array], n_resamples: int, seed: int, part: int = 0) -> Array:
    """Means [1 + n_resamples, B] of the data, then of the resamples' `part`."""
    sums, counts = totals
    trainings, prompts = (drawn.astype(np.float64) for drawn in _drawn(*sums.shape[:2], n_resamples, seed, part))
    with np.errstate(invalid="ignore"):
        means: Array = np.einsum("rs,rc,scb->rb", trainings, prompts, sums, optimize=True) / np.einsum(
            "rs,rc,scb->rb", trainings, prompts, counts, optimize=True
        )
    return means


@lru_cache(maxsize=2 * PARTS)
def _drawn(n_seeds: int, n_clusters: int, n_resamples: int, seed: int, part: int) -> tuple[Counts, Counts]:
    """How often each training [1 + n_resamples, S] and each cluster of prompts [1 + n_resamples, clusters] is drawn; in
    the first row each once. Comparisons on as many prompts share their draws."""
    random = np.random.default_rng([seed, part] if part else seed)
    prompts = random.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), n_resamples)
    trainings = random.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), n_resamples)
    once = (np.vstack([np.ones((1, drawn.shape[1])), drawn]) for drawn in (trainings, prompts))
    first, second = (counts.astype(np.uint16) for counts in once)  # kept by the cache: a quarter of the memory
    return first, second


def seeded_half_budget_ratio(
    budgets_a: npt.ArrayLike,
    compliance_a: npt.ArrayLike,
    budgets_b: npt.ArrayLike,
    compliance_b: npt.ArrayLike,
    clusters: Sequence[Any] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> HalfBudgetRatio:
    """`half_budget_ratio` of the curves' means over trainings, which are drawn anew too: compliance [S, n, B]."""
    grids, halves = [], []
    for budgets, compliance in ((budgets_a, compliance_a), (budgets_b, compliance_b)):
        tables = np.asarray(compliance, dtype=np.float64)
        if tables.ndim != 3:
            raise ValueError(f"curves of trainings must have the shape [S, n, B], not {tables.shape}")
        grid, _ = checked_curve(budgets, tables.reshape(-1, tables.shape[2]))
        grids.append(grid)
        halves.append(half_budgets(grid, seeded_means(tables, clusters, n_resamples, seed)))
    return ratio_of_halves(grids[0], halves[0], grids[1], halves[1])
