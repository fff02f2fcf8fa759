"""Intervals, paired differences and robustness curves (method.md §6, §7): every figure with its doubt.

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
DRAWS, RARE, RARE_DRAWS, RARE_RESAMPLES = 10_000, 20, 200_000, 50_000
"""Draws of a p value at first, the number of extreme ones below which more are taken, and how many random signs and how
many resamples there are then."""


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


@dataclass(frozen=True)
class HalfBudget:
    """Half-compliance budget (relative step, no unit) and its 95 % interval.

    Where compliance never reaches one half `censored` is true and `value` is inf: the budget is above the
    largest tested. `high` is inf where more than 2.5 % of the resamples are censored, `low` where more than
    97.5 % are.
    """

    value: float
    low: float
    high: float
    censored: bool


@dataclass(frozen=True)
class HalfBudgetRatio:
    """Ratio of two half-compliance budgets, a over b, and its 95 % interval.

    A censored budget is known to lie above the largest tested one only. `ratio` is inf where a is censored
    and NaN where b is; `at_least` is the smallest ratio that the data allow (equal to `ratio` where neither
    is censored, and 0 where b is censored); `low` and `high` take the smallest and the largest allowed ratio
    of every resample.
    """

    ratio: float
    low: float
    high: float
    at_least: float
    censored: bool


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


def half_compliance_budget(
    budgets: npt.ArrayLike,
    compliance: npt.ArrayLike,
    clusters: Sequence[Any] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> HalfBudget:
    """Budget at which mean compliance first reaches one half (method.md §6).

    The curve is linear between the tested budgets. `budgets` [B] ascend; `compliance` [n, B] is 0, 1 or NaN
    for each prompt. The direct request, where it is there, is the column of budget 0. A curve that begins at
    or above one half has its first budget as its value.
    """
    grid, table = checked_curve(budgets, compliance)
    values = half_budgets(grid, resampled_means(table, clusters, n_resamples, seed))
    low, high = _percentiles(values[1:])
    return HalfBudget(float(values[0]), low, high, bool(np.isinf(values[0])))


def half_budget_ratio(
    budgets_a: npt.ArrayLike,
    compliance_a: npt.ArrayLike,
    budgets_b: npt.ArrayLike,
    compliance_b: npt.ArrayLike,
    clusters: Sequence[Any] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> HalfBudgetRatio:
    """Half-compliance budget of run a over that of run b, on the same n prompts and the same resamples.

    Arguments as in `half_compliance_budget`; the budgets of the two runs may differ.
    """
    grid_a, table_a = checked_curve(budgets_a, compliance_a)
    grid_b, table_b = checked_curve(budgets_b, compliance_b)
    if len(table_a) != len(table_b):
        raise ValueError(f"paired curves need the same prompts, not {len(table_a)} and {len(table_b)}")
    half_a = half_budgets(grid_a, resampled_means(table_a, clusters, n_resamples, seed))
    half_b = half_budgets(grid_b, resampled_means(table_b, clusters, n_resamples, seed))
    return ratio_of_halves(grid_a, half_a, grid_b, half_b)


def half_budget_p(
    budgets_a: npt.ArrayLike,
    compliance_a: npt.ArrayLike,
    budgets_b: npt.ArrayLike,
    compliance_b: npt.ArrayLike,
    clusters: Sequence[Any] | None = None,
    seed: int = 0,
) -> float:
    """Two-sided p value of equal half-compliance budgets: twice the share of resamples whose ratio lies, or may lie, on
    the other side of 1. Arguments as in `half_budget_ratio`, whose interval leaves out 1 where this is below 0.05.

    Where hardly a resample does, many more are taken (see `_sign_flip_p`). The data count as one draw.
    """
    grid_a, table_a = checked_curve(budgets_a, compliance_a)
    grid_b, table_b = checked_curve(budgets_b, compliance_b)

    def beyond(part: int) -> npt.NDArray[np.int64]:
        halves = (
            half_budgets(grid, resampled_means(table, clusters, DRAWS, seed + part))[1:]
            for grid, table in ((grid_a, table_a), (grid_b, table_b))
        )
        least, most = _allowed_ratios(grid_a, next(halves), grid_b, next(halves))
        return np.array([(least <= 1).sum(), (most >= 1).sum()])

    drawn, found = DRAWS, beyond(0)
    if found.min() < RARE:
        parts = RARE_RESAMPLES // DRAWS
        drawn, found = RARE_RESAMPLES, found + sum(beyond(part) for part in range(1, parts))
    return min(1.0, 2 * (1 + int(found.min())) / (1 + drawn))


def ratio_of_halves(grid_a: Array, half_a: Array, grid_b: Array, half_b: Array) -> HalfBudgetRatio:
    """The ratio from the two runs' half-compliance budgets [1 + R], the data's own first."""
    least, most = _allowed_ratios(grid_a, half_a, grid_b, half_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(half_a[0] / half_b[0]) if np.isfinite(half_b[0]) else np.nan
    low, high = _percentiles(least[1:])[0], _percentiles(most[1:])[1]
    censored = bool(np.isinf(half_a[0]) or np.isinf(half_b[0]))
    return HalfBudgetRatio(ratio, low, high, float(least[0]), censored)


def _allowed_ratios(grid_a: Array, half_a: Array, grid_b: Array, half_b: Array) -> tuple[Array, Array]:
    """The smallest and the largest ratio [R] that budgets allow of which some are only known to be above a largest."""
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.nan_to_num(np.minimum(half_a, grid_a[-1]) / half_b, nan=0.0, posinf=np.inf)
        most = np.nan_to_num(half_a / np.minimum(half_b, grid_b[-1]), nan=np.inf, posinf=np.inf)
    return least, most


def interpolate_at_budget(
    budgets: npt.ArrayLike,
    values: npt.ArrayLike,
    at: float,
    clusters: Sequence[Any] | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean curve of `values` [n, B] (refusals, for a DSR) at budget `at`.

    Linear between the tested budgets [B]; all NaN outside the tested range: a curve is never extended.
    """
    grid, table = checked_curve(budgets, values)
    if not grid[0] <= at <= grid[-1]:
        return Interval(np.nan, np.nan, np.nan)
    curves = resampled_means(table, clusters, n_resamples, seed)
    right = int(np.clip(np.searchsorted(grid, at), 1, max(1, len(grid) - 1)))
    if len(grid) == 1:
        return percentile_interval(curves[:, 0])
    share = (at - grid[right - 1]) / (grid[right] - grid[right - 1])
    return percentile_interval(curves[:, right - 1] * (1 - share) + curves[:, right] * share)


def resampled_means(table: Array, clusters: Sequence[Any] | None, n_resamples: int, seed: int) -> Array:
    """Column means [1 + n_resamples, B] of `table` [n, B]: the data's own in row 0, then the resamples'.

    NaN entries are left out; a mean over no entry is NaN.
    """
    sums, counts = _cluster_sums(table, cluster_index(clusters, len(table)))
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


def _cluster_sums(table: Array, index: npt.NDArray[np.intp]) -> tuple[Array, Array]:
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


def _percentiles(draws: Array) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points as order statistics: two neighbours have no mean where one is inf."""
    known = draws[~np.isnan(draws)]
    if len(known) == 0:
        return np.nan, np.nan
    low, high = np.quantile(known, [TAIL, 1 - TAIL], method="inverted_cdf")
    return float(low), float(high)


def percentile_interval(means: Array) -> Interval:
    """Point figure (row 0) and percentile interval (the other rows)."""
    return Interval(float(means[0]), *_percentiles(means[1:]))


def checked_curve(budgets: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Array, Array]:
    """Budgets [B] and values [n, B] as arrays; ValueError unless budgets ascend and every one has a value."""
    grid, table = np.asarray(budgets, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if grid.ndim != 1 or table.ndim != 2 or table.shape[1] != len(grid) or table.size == 0:
        raise ValueError(f"a curve needs budgets [B] and values [n, B], not {grid.shape} and {table.shape}")
    if not np.isfinite(grid).all() or (np.diff(grid) <= 0).any() or grid[0] < 0:
        raise ValueError(f"budgets must ascend from 0 or above: {grid.tolist()}")
    empty = ~np.isfinite(table).any(axis=0)
    if empty.any():
        raise ValueError(f"no value at budget {grid[empty][0]}")
    return grid, table


def half_budgets(grid: Array, curves: Array) -> Array:
    """First budget [R] at which each of `curves` [R, B] reaches one half, inf where none does."""
    # Sums of weights times 0/1 are exact, but a share of one half may come out an ulp below it.
    reached = curves >= 0.5 - 1e-12
    first = reached.argmax(axis=1)
    rows = np.arange(len(curves))
    before = np.maximum(first - 1, 0)
    high, low = curves[rows, first], curves[rows, before]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(first == 0, 0.0, (0.5 - low) / (high - low))
    budget = grid[before] + np.clip(share, 0.0, 1.0) * (grid[first] - grid[before])
    return np.where(reached.any(axis=1), budget, np.inf)


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
