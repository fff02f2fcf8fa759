"""es2.statistics against scipy, statsmodels and plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from statsmodels.stats.proportion import proportion_confint

from es2 import statistics
from es2.half_budget import (
    half_budget_p,
    half_budget_ratio,
    half_compliance_budget,
    interpolate_at_budget,
)
from es2.statistics import _resamples, bootstrap_mean, holm, paired_difference, resampled_means, wilson

curves = st.integers(2, 6).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([0.0, 1.0]), min_size=width, max_size=width), min_size=1, max_size=12
    )
)


def naive_half_budget(grid: list[float], curve: list[float]) -> float:
    """First crossing of one half by walking along the curve."""
    if curve[0] >= 0.5:
        return grid[0]
    for left in range(len(grid) - 1):
        if curve[left + 1] >= 0.5:
            rise = (0.5 - curve[left]) / (curve[left + 1] - curve[left])
            return grid[left] + rise * (grid[left + 1] - grid[left])
    return float("inf")


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=50, deadline=None)
def test_wilson_is_that_of_statsmodels_and_holds_the_share(counts: tuple[int, int]) -> None:
    k, n = counts
    interval = wilson(k, n)
    low, high = proportion_confint(k, n, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)
    assert 0 <= interval.low <= interval.value + 1e-12
    assert interval.value - 1e-12 <= interval.high <= 1


def test_wilson_of_nothing_is_nan() -> None:
    assert np.isnan(wilson(0, 0).value)


def test_bootstrap_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 80)
    ours = bootstrap_mean(values, n_resamples=20_000, seed=1)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_bootstrap_is_deterministic_and_leaves_missing_values_out() -> None:
    values = [0.0, 1.0, np.nan, 1.0]
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values).value == pytest.approx(2 / 3)
    assert np.isnan(bootstrap_mean([np.nan, np.nan]).value)


def test_resampled_means_equal_a_loop_over_clusters() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(9, 2))
    table[4, 1] = np.nan
    clusters = [3, 3, 5, 5, 5, 8, 9, 9, 1]
    means = resampled_means(table, clusters, 20, seed=7)
    names = sorted(set(clusters))
    draws = np.random.default_rng(7).multinomial(len(names), np.full(len(names), 1 / len(names)), 20)
    for row, draw in enumerate(draws, start=1):
        members = [np.flatnonzero(np.array(clusters) == name) for name in names]
        chosen = np.concatenate([np.tile(rows, times) for rows, times in zip(members, draw, strict=True)])
        np.testing.assert_allclose(means[row], np.nanmean(table[chosen], axis=0))
    np.testing.assert_allclose(means[0], np.nanmean(table, axis=0))


def test_clusters_widen_the_interval() -> None:
    values = np.repeat([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0], 5)
    alone, together = bootstrap_mean(values), bootstrap_mean(values, np.repeat(np.arange(8), 5).tolist())
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_paired_difference_of_binary_vectors_is_mcnemars() -> None:
    a = np.array([1] * 30 + [1] * 12 + [0] * 3 + [0] * 5)
    b = np.array([1] * 30 + [0] * 12 + [1] * 3 + [0] * 5)
    paired = paired_difference(a, b)
    assert paired.difference == pytest.approx(9 / 50)
    assert paired.p == pytest.approx(binomtest(3, 15).pvalue)
    assert paired.low < paired.difference < paired.high
    assert paired.n == 50
    swapped = paired_difference(b, a)
    assert swapped.difference == -paired.difference
    assert swapped.p == paired.p


def test_sign_flips_on_singletons_are_mcnemars_test() -> None:
    sums = np.array([1.0] * 12 + [-1.0] * 3)
    assert statistics._sign_flip_p(sums, 50_000, 0) == pytest.approx(binomtest(3, 15).pvalue, abs=0.005)


def test_a_rare_sign_flip_is_told_from_a_rarer_one() -> None:
    """A p value that ten thousand draws cannot show stands a Holm adjustment among a thousand comparisons."""
    rare = np.array([1.0] * 15 + [-1.0])
    assert statistics._sign_flip_p(rare, 1000, 0) == pytest.approx(binomtest(1, 16).pvalue, rel=0.3)
    clear = paired_difference(np.linspace(0.5, 1, 60), np.zeros(60))
    assert clear.p * 1000 <= 0.05


def test_twins_count_once_in_the_p_value() -> None:
    a, b = np.ones(12), np.zeros(12)
    alone, twins = (
        paired_difference(a, b),
        paired_difference(a, b, clusters=np.repeat([0, 1, 2, 3], 3).tolist()),
    )
    assert alone.p < 0.001
    assert twins.p == pytest.approx(2 / 16, abs=0.02)


def test_paired_difference_without_a_pair_and_of_unequal_lengths() -> None:
    assert np.isnan(paired_difference([np.nan, 1.0], [1.0, np.nan]).p)
    assert paired_difference([1.0, np.nan, 0.0], [0.0, 1.0, 0.0]).n == 2
    with pytest.raises(ValueError, match="shape"):
        paired_difference([1.0], [1.0, 0.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_holm_is_monotone_and_never_lowers_a_p_value(p: list[float]) -> None:
    adjusted = holm(p)
    order = np.argsort(p)
    assert (adjusted >= np.array(p) - 1e-12).all()
    assert (np.diff(adjusted[order]) >= -1e-12).all()
    running, expected = 0.0, np.empty(len(p))
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        expected[index] = running
    np.testing.assert_allclose(adjusted, expected, atol=1e-12)


def test_holm_keeps_missing_tests_missing() -> None:
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert len(holm([])) == 0


@given(curves)
@settings(max_examples=60, deadline=None)
def test_half_budget_is_the_first_crossing(rows: list[list[float]]) -> None:
    table = np.array(rows)
    grid = np.linspace(0.0, 0.1, table.shape[1])
    half = half_compliance_budget(grid, table, n_resamples=50)
    expected = naive_half_budget(grid.tolist(), table.mean(axis=0).tolist())
    assert half.value == pytest.approx(expected)
    assert half.censored == np.isinf(expected)
    assert half.low <= half.high
    means = resampled_means(table, None, 50, 0)[1:]
    naive = sorted(naive_half_budget(grid.tolist(), curve.tolist()) for curve in means)
    assert (half.low, half.high) == pytest.approx((naive[1], naive[48]))


@given(curves, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_more_compliance_never_raises_the_half_budget(rows: list[list[float]], seed: int) -> None:
    table = np.array(rows)
    more = np.maximum(table, np.random.default_rng(seed).integers(0, 2, table.shape))
    grid = np.arange(table.shape[1]) / 100
    before = half_compliance_budget(grid, table, n_resamples=50)
    after = half_compliance_budget(grid, more, n_resamples=50)
    assert after.value <= before.value + 1e-12
    assert after.low <= before.low + 1e-12
    assert after.high <= before.high + 1e-12


def test_censored_half_budget_has_no_upper_end() -> None:
    never = half_compliance_budget([0.0, 0.01, 0.02], np.zeros((20, 3)))
    assert never.censored
    assert np.isinf([never.value, never.low, never.high]).all()
    table = np.zeros((20, 2))
    table[:11, 1] = 1
    often = half_compliance_budget([0.01, 0.02], table)
    assert not often.censored
    assert np.isfinite(often.low)
    assert np.isinf(often.high)


def test_a_rare_censored_resample_leaves_the_interval_finite() -> None:
    table = np.zeros((40, 2))
    table[:32, 1] = 1
    assert np.isfinite(half_compliance_budget([0.0, 0.02], table).high)


def test_half_budget_refuses_a_grid_that_does_not_ascend_and_an_empty_column() -> None:
    with pytest.raises(ValueError, match="ascend"):
        half_compliance_budget([0.02, 0.01], np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"no value at budget 0\.02"):
        half_compliance_budget([0.01, 0.02], [[0.0, np.nan], [1.0, np.nan]])


def test_ratio_of_half_budgets_is_paired() -> None:
    rng = np.random.default_rng(5)
    threshold = rng.uniform(0.5, 1.5, 60)
    grid = np.linspace(0, 2, 9)
    weak = (grid >= threshold[:, None]).astype(float)
    strong_grid = grid * 1.7
    ratio = half_budget_ratio(strong_grid, weak, grid, weak)
    assert (ratio.ratio, ratio.low, ratio.high, ratio.at_least) == pytest.approx((1.7,) * 4)
    assert not ratio.censored


def test_ratio_with_censored_budgets_says_what_the_data_allow() -> None:
    grid = [0.0, 0.01, 0.02]
    never, always = np.zeros((10, 3)), np.tile([0.0, 1.0, 1.0], (10, 1))
    above = half_budget_ratio(grid, never, grid, always)
    assert (above.ratio, above.at_least, above.low, above.high) == (
        np.inf,
        pytest.approx(4),
        pytest.approx(4),
        np.inf,
    )
    below = half_budget_ratio(grid, always, grid, never)
    assert np.isnan(below.ratio)
    assert (below.low, below.high) == (0.0, pytest.approx(0.25))
    neither = half_budget_ratio(grid, never, grid, never)
    assert neither.censored
    assert (neither.low, neither.high) == (0.0, np.inf)


def test_interpolation_is_numpys_inside_the_grid_and_nan_outside() -> None:
    rng = np.random.default_rng(8)
    grid, table = np.array([0.0, 0.01, 0.03]), rng.integers(0, 2, (30, 3)).astype(float)
    for at in (0.0, 0.004, 0.01, 0.02, 0.03):
        interval = interpolate_at_budget(grid, table, at)
        assert interval.value == pytest.approx(np.interp(at, grid, table.mean(axis=0)))
        assert interval.low <= interval.value <= interval.high
    assert np.isnan(interpolate_at_budget(grid, table, 0.031).value)
    assert interpolate_at_budget([0.01], table[:, :1], 0.01).value == table[:, 0].mean()


def at_half(generator, n, first, second):
    """Curves [n, 4] of two runs, a prompt's place in both drawn together."""
    ranks = generator.random((n, 1))
    other = np.where(generator.random((n, 1)) < 0.5, ranks, generator.random((n, 1)))
    return (ranks < np.asarray(first)).astype(float), (other < np.asarray(second)).astype(float)


def test_the_p_value_of_a_ratio_is_twice_the_share_of_resamples_on_the_other_side():
    grid = [0.0, 0.1, 0.2, 0.3]
    a, b = at_half(np.random.default_rng(4), 60, [0, 0.3, 0.6, 0.9], [0.1, 0.4, 0.7, 0.9])
    clusters = [place // 2 for place in range(60)]
    generator = np.random.default_rng(1)
    other_side = 0
    for _ in range(4000):
        places = [2 * one + k for one in generator.integers(0, 30, 30) for k in (0, 1)]
        halves = [half_compliance_budget(grid, run[places].mean(axis=0)[None], n_resamples=1).value for run in (a, b)]
        other_side += halves[0] <= halves[1]
    found = half_budget_p(grid, a, grid, b, clusters)
    assert 0.01 < found < 0.5
    assert found == pytest.approx(2 * other_side / 4000, abs=0.03)
    assert half_budget_p(grid, b, grid, a, clusters) == pytest.approx(found)


def test_the_p_value_of_a_ratio_tells_nothing_from_a_clear_difference():
    grid = [0.0, 0.1, 0.2]
    early, late = (np.tile([0.0, first, 1.0], (64, 1)) for first in (1.0, 0.0))
    never = np.zeros((64, 3))
    assert half_budget_p(grid, early, grid, late) == pytest.approx(2 / 50_001)
    assert half_budget_p(grid, never, grid, early) == pytest.approx(2 / 50_001)
    assert half_budget_p(grid, early, [0.0, 0.15, 0.2], late) < 1e-3
    assert half_budget_p(grid, early, grid, early) == half_budget_p(grid, never, grid, never) == 1.0


@pytest.mark.parametrize("curves", [([0.3, 0.45, 0.55, 0.7],) * 2, ([0, 0.05, 0.95, 1], [0.3, 0.45, 0.55, 0.7])])
def test_the_p_value_of_a_ratio_is_rarely_small_where_budgets_are_alike_and_curves_may_differ(curves):
    generator = np.random.default_rng(11)
    runs = [at_half(generator, 100, *curves) for _ in range(60)]
    grid = [0.0, 0.1, 0.2, 0.3]
    assert sum(half_budget_p(grid, a, grid, b) <= 0.05 for a, b in runs) <= 8


def test_equal_resamples_are_drawn_once_and_cannot_be_changed():
    table = np.random.default_rng(0).random((9, 2))
    first, again = (resampled_means(table, None, 50, 3) for _ in range(2))
    assert np.array_equal(first, again)
    drawn = np.random.default_rng(3).multinomial(9, np.full(9, 1 / 9), 50)
    np.testing.assert_allclose(first[1:], drawn @ table / 9)
    assert not _resamples(9, 50, 3).flags.writeable
