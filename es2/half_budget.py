"""Half-compliance budgets on robustness curves, their ratios, and curves read at a budget (method.md §6).

Resampled as in es2.statistics: intervals cover 95 %, and a missing verdict is NaN and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from es2.statistics import (
    DRAWS,
    RARE,
    RESAMPLES,
    Array,
    Interval,
    percentile_interval,
    percentiles,
    resampled_means,
)

RARE_RESAMPLES = 50_000
"""Resamples of a p value where few of the first `DRAWS` are extreme."""


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
    low, high = percentiles(values[1:])
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
    low, high = percentiles(least[1:])[0], percentiles(most[1:])[1]
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
