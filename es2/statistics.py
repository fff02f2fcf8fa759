"""Intervals and paired differences (method.md §7): every figure with its doubt.

All intervals cover 95 %. The bootstrap draws clusters of near-twin prompts, or single prompts where no
clusters are given, with one seeded generator: equal arguments give equal figures. A missing verdict is NaN
and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

Array = npt.NDArray[np.float64]
RESAMPLES = 2000
TAIL = 0.025
DRAWS, RARE, RARE_DRAWS = 10_000, 20, 200_000
"""Draws of a p value at first, the number of extreme ones below which more are taken, and how many random signs there
are then."""


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval, in the figure's own unit; NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over the same prompts, its 95 % interval, a two-sided p value, the number of pairs."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def wilson(k: int, n: int) -> Interval:
    """Share k / n with its Wilson score interval; all NaN for n = 0."""
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    bounds = binomtest(k, n).proportion_ci(confidence_level=1 - 2 * TAIL, method="wilson")
    return Interval(k / n, float(bounds.low), float(bounds.high))


def bootstrap_mean(
    values: npt.ArrayLike, clusters: Sequence[Any] | None = None, n_resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean of `values` [n] with a percentile interval over clusters; all NaN if no value is there."""
    column = np.asarray(values, dtype=np.float64)[:, None]
    if not np.isfinite(column).any():
        return Interval(np.nan, np.nan, np.nan)
    return percentile_interval(resampled_means(column, clusters, n_resamples, seed)[:, 0])


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    clusters: Sequence[Any] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Mean of a - b [n, the same prompts in the same order] with a cluster-bootstrap interval and a p value.

    The p value is McNemar's exact one for binary vectors whose clusters hold one prompt each, else that of a
    test that flips the sign of whole clusters (on binary singletons the two are the same test). Where no pair
    differs the interval has no width: it cannot say how rare a difference would be.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"paired vectors must have one shape [n], not {first.shape} and {second.shape}")
    whole = np.isfinite(first) & np.isfinite(second)
    n = int(whole.sum())
    if n == 0:
        return PairedDifference(np.nan, np.nan, np.nan, np.nan, 0)
    index = cluster_index(clusters, len(first))[whole]
    first, second = first[whole], second[whole]
    interval = bootstrap_mean(first - second, index.tolist(), n_resamples, seed)
    binary = bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    if binary and len(np.unique(index)) == n:
        p = _mcnemar_p(first, second)
    else:
        p = _sign_flip_p(np.bincount(index, first - second).astype(np.float64), n_resamples, seed)
    return PairedDifference(interval.value, interval.low, interval.high, p, n)


def holm(p: npt.ArrayLike) -> Array:
    """Holm's adjusted p values [m]; NaN entries stay NaN and do not count in the family."""
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(raw.shape, np.nan)
    there = np.isfinite(raw)
    if there.any():
        adjusted[there] = multipletests(raw[there], method="holm")[1]
    return adjusted


def resampled_means(table: Array, clusters: Sequence[Any] | None, n_resamples: int, seed: int) -> Array:
    """Column means [1 + n_resamples, B] of `table` [n, B]: the data's own in row 0, then the resamples'.

    NaN entries are left out; a mean over no entry is NaN.
    """
    sums, counts = cluster_sums(table, cluster_index(clusters, len(table)))
    weights = np.vstack([np.ones((1, len(sums))), _resamples(len(sums), n_resamples, seed)])
    with np.errstate(invalid="ignore"):
        means: Array = (weights @ sums) / (weights @ counts)
    return means


@lru_cache(maxsize=32)
def _resamples(n_clusters: int, n_resamples: int, seed: int) -> npt.NDArray[np.uint16]:
    """How often each cluster is in each resample [R, C]; the tables of a study ask for the same ones often."""
    draws = np.random.default_rng(seed).multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), n_resamples)
    counts = draws.astype(np.uint16)
    counts.flags.writeable = False
    return counts


def cluster_sums(table: Array, index: npt.NDArray[np.intp]) -> tuple[Array, Array]:
    """Sums and numbers [C, B] of what is there of `table` [n, B], by its rows' clusters `index` [n]."""
    there = np.isfinite(table)
    sums, counts = (np.zeros((int(index.max()) + 1, table.shape[1])) for _ in range(2))
    np.add.at(sums, index, np.where(there, table, 0.0))
    np.add.at(counts, index, there.astype(np.float64))
    return sums, counts


def cluster_index(clusters: Sequence[Any] | None, n: int) -> npt.NDArray[np.intp]:
    """Cluster of every prompt as an index from 0 [n]; each prompt is its own where no clusters are given."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} clusters for {n} prompts")
    return np.unique(np.asarray(clusters), return_inverse=True)[1].astype(np.intp)


def percentiles(draws: Array) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points as order statistics: two neighbours have no mean where one is inf."""
    known = draws[~np.isnan(draws)]
    if len(known) == 0:
        return np.nan, np.nan
    low, high = np.quantile(known, [TAIL, 1 - TAIL], method="inverted_cdf")
    return float(low), float(high)


def percentile_interval(means: Array) -> Interval:
    """Point figure (row 0) and percentile interval (the other rows)."""
    return Interval(float(means[0]), *percentiles(means[1:]))


def _mcnemar_p(a: Array, b: Array) -> float:
    """Exact two-sided McNemar p value of two 0/1 vectors [n]."""
    table = [[np.sum((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)]
    return float(mcnemar(table, exact=True).pvalue)


def _sign_flip_p(sums: Array, n_resamples: int, seed: int) -> float:
    """Two-sided p value of cluster sums [m] of differences under random signs; the data count as one draw.

    Where hardly a draw is as extreme as the data, many more are taken: among a thousand comparisons Holm asks for a p
    of some hundred-thousandths, which few draws cannot show however clear the difference is.
    """
    moved = sums[sums != 0]
    if len(moved) == 0:
        return 1.0
    generator = np.random.default_rng(seed)
    drawn = max(n_resamples, DRAWS)
    extreme = _extreme_draws(moved, drawn, generator)
    if extreme < RARE:
        more = RARE_DRAWS // DRAWS - 1
        extreme += sum(_extreme_draws(moved, DRAWS, generator) for _ in range(more))
        drawn += more * DRAWS
    return (1 + extreme) / (1 + drawn)


def _extreme_draws(moved: Array, n: int, generator: np.random.Generator) -> int:
    """How many of n draws of signs give `moved` [m] a sum at least as far from 0 as its own."""
    signs = generator.integers(0, 2, (n, len(moved))) * 2.0 - 1.0
    return int((np.abs(signs @ moved) >= abs(moved.sum()) * (1 - 1e-12)).sum())
