"""Statistics over several trainings, against plain resampling and in the limits that must hold."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from verdict_frames import SETTINGS, cell, curve, frame, one

from es2.half_budget import half_budget_ratio
from es2.seeded import PARTS, RARE, seeded_difference, seeded_half_budget_ratio, seeded_means
from es2.statistics import paired_difference, resampled_means
from es2.tables.paired import paired_table
from es2.tables.seeds import LEAST_RESAMPLES, seeds_table

RANDOM = np.random.default_rng(3)


def test_means_are_those_of_plain_resampling() -> None:
    """Each resample by hand: the rows of drawn trainings, the prompts of drawn clusters."""
    tables = RANDOM.random((3, 8, 2))
    tables[1, 2, 0] = np.nan
    clusters = [0, 0, 1, 2, 2, 2, 3, 4]
    found = seeded_means(tables, clusters, 50, seed=1)
    random = np.random.default_rng(1)
    prompts = random.multinomial(5, np.full(5, 0.2), 50)
    trainings = random.multinomial(3, np.full(3, 1 / 3), 50)
    for i in range(50):
        rows = [s for s in range(3) for _ in range(trainings[i, s])]
        columns = [n for n in range(8) for _ in range(prompts[i, clusters[n]])]
        expected = np.nanmean(tables[rows][:, columns].reshape(-1, 2), axis=0)
        assert found[i + 1] == pytest.approx(expected)
    assert found[0] == pytest.approx(np.nanmean(tables.reshape(-1, 2), axis=0))


def test_one_training_is_the_bootstrap_over_prompts() -> None:
    table = RANDOM.integers(0, 2, (1, 40, 3)).astype(float)
    assert seeded_means(table, None, 200, seed=4) == pytest.approx(resampled_means(table[0], None, 200, seed=4))


def test_trainings_that_differ_widen_the_interval() -> None:
    alike = np.tile(RANDOM.integers(-1, 2, 60).astype(float), (3, 1))
    apart = alike + np.array([[-0.3], [0.0], [0.3]])
    narrow, wide = seeded_difference(alike), seeded_difference(apart)
    assert narrow.difference == pytest.approx(wide.difference)
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)
    alone = paired_difference(alike[0], np.zeros(60))
    assert (narrow.low, narrow.high) == pytest.approx((alone.low, alone.high), abs=0.05)


def test_p_is_small_for_a_clear_difference_and_large_for_none() -> None:
    clear = np.ones((3, 30))
    clear[:, :5] = 0
    assert seeded_difference(clear, n_resamples=999).p == pytest.approx(2 / (1 + PARTS * 999))
    assert seeded_difference(np.tile([1.0, -1.0], (3, 15))).p > 0.5
    with pytest.raises(ValueError, match="shape"):
        seeded_difference(np.ones(3))


def test_more_resamples_for_a_rare_tail_leave_interval_and_the_share_beyond_zero() -> None:
    """A difference two and a half standard errors off: the tail of few resamples against that of as many at once."""
    table = np.tile(np.repeat([1.0, -1.0], [62, 38]), (3, 1))
    few, many = (seeded_difference(table, n_resamples=n, seed=2) for n in (1000, 1000 * PARTS))
    assert few.p == pytest.approx(many.p, rel=0.25)
    means = seeded_means(table[:, :, None], None, 1000, seed=2)[1:, 0]
    assert 0 < (means <= 0).sum() < RARE
    assert (few.low, few.high) == tuple(np.quantile(means, [0.025, 0.975], method="inverted_cdf"))


def test_a_thousand_comparisons_leave_a_clear_difference_over_seeds_to_holm() -> None:
    clear = seeded_difference(np.ones((3, 30)), n_resamples=LEAST_RESAMPLES)
    assert 1600 * clear.p < 0.05


def test_ratio_of_the_mean_curves() -> None:
    budgets = [0.0, 1.0, 2.0]
    a = RANDOM.random((2, 12, 3)) < np.array([0.1, 0.4, 0.9])
    b = RANDOM.random((2, 12, 3)) < np.array([0.1, 0.8, 0.9])
    found = seeded_half_budget_ratio(budgets, a, budgets, b)
    stacked = half_budget_ratio(budgets, a.reshape(-1, 3), budgets, b.reshape(-1, 3))
    assert found.ratio == pytest.approx(stacked.ratio)
    assert found.low <= found.ratio <= found.high
    never = seeded_half_budget_ratio(budgets, np.zeros((2, 12, 3)), budgets, b)
    assert math.isinf(never.ratio)
    with pytest.raises(ValueError, match="shape"):
        seeded_half_budget_ratio(budgets, a[0], budgets, b[0])


def study(*seeds: int) -> pd.DataFrame:
    parts = []
    for seed in seeds:
        for run, direct, points in (
            ("sft", "rrrc", {1.0: "rrcc", 2.0: "cccc"}),
            ("es2", "rrrr", {1.0: "rrrr", 2.0: "rrrc" if seed else "rrcc"}),
        ):
            parts += [cell(run, direct, seed=seed)]
            parts += [[line | {"seed": seed} for line in curve(run, "adv", points)]]
    return frame(*parts)


def test_the_table_pools_the_seeds_of_every_comparison() -> None:
    budgets = {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}
    table = seeds_table(study(0, 1), budgets, SETTINGS)
    at = one(table, attack="scav_adaptive", benchmark="adv", measure="refusal", factor=2.0)
    single = paired_table(study(0, 1), budgets, SETTINGS)
    each = [
        one(single, attack="scav_adaptive", benchmark="adv", measure="refusal", factor=2.0, seed=seed)["difference"]
        for seed in (0, 1)
    ]
    assert each == [0.5, 0.75]
    assert (at["value"], at["n"], at["n_seeds"]) == (pytest.approx(np.mean(each)), 4, 2)
    ratio = one(table, attack="scav_adaptive", benchmark="adv", measure="half_compliance_ratio")
    assert math.isinf(ratio["value"])
    assert one(table, attack="direct", benchmark="pooled", measure="refusal")["primary"]
    assert table["primary"].sum() == 1


def test_a_primary_endpoint_at_a_budget_is_found_beside_attacks_without_one() -> None:
    primary = (
        ("run_a", "es2"), ("run_b", "sft"), ("attack", "scav_adaptive"), ("fitted_on", "self"),
        ("benchmark", "pooled"), ("measure", "compliance"), ("judge", "keyword"), ("factor", 1.0),
    )  # fmt: skip
    settings = replace(SETTINGS, primary=primary)
    table = seeds_table(study(0, 1), {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}, settings)
    assert table["attack"].nunique() > 1
    first = one(table, primary=True)
    assert (first["budget"], first["n_seeds"], first["p"]) == (1.0, 2, first["p_adjusted"])


def test_a_clear_difference_survives_holm_over_many_comparisons() -> None:
    runs = {"sft": "c" * 40, "es2": "r" * 40}
    attacks = [f"a{i}" for i in range(20)]
    parts = [
        cell(run, verdicts, attack=attack, fitted_on="self", seed=seed)
        for run, verdicts in runs.items()
        for attack in attacks
        for seed in (0, 1, 2)
    ]
    table = seeds_table(frame(*parts), {}, SETTINGS)
    clear = table[table["measure"] == "refusal"]
    assert len(clear) >= 40
    assert (clear["p_adjusted"] <= 0.05).all()


def test_one_seed_leaves_nothing_to_pool() -> None:
    assert seeds_table(study(0), {"m": {"scav_adaptive": [0.5, 1.0, 2.0]}}, SETTINGS).empty
