"""Clusters of near-twins and the splits made of them, against brute force."""

import itertools
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_tables import distinct, jaccard, table

from es2.errors import UserError
from es2.prompts.cleaning import prompt_id
from es2.prompts.leakage import check_leakage
from es2.prompts.splits import SPLITS, cluster_prompts, jaccard_blocks, split_sets

WORDS = [f"{a}{b}{c}" for a, b, c in itertools.product("bdfgk", "aou", ("nk", "rt", "mp", "lk"))]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join), max_size=40)
SETTINGS = settings(max_examples=40, deadline=None)


@given(TEXTS, st.integers(1, 50))
@SETTINGS
def test_jaccard_and_clusters_agree_with_brute_force(texts, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("es2.prompts.splits._BLOCK", block)
        found = {(i, j): value for part in jaccard_blocks(texts) for i, j, value in zip(*part, strict=True)}
    parent = list(range(len(texts)))

    def root(i):
        return i if parent[i] == i else root(parent[i])

    for i, j in itertools.combinations(range(len(texts)), 2):
        assert found.get((i, j), 0.0) == pytest.approx(jaccard(texts[i], texts[j]))
        if jaccard(texts[i], texts[j]) >= 0.5:
            parent[root(i)] = root(j)
    clusters = cluster_prompts(texts, [prompt_id(text) for text in texts])
    for i, j in itertools.combinations(range(len(texts)), 2):
        assert (clusters[i] == clusters[j]) == (root(i) == root(j))


@given(TEXTS, st.randoms(use_true_random=False))
@SETTINGS
def test_cluster_numbers_do_not_depend_on_the_order(texts, random):
    texts = list(dict.fromkeys(texts))
    before = dict(zip(texts, cluster_prompts(texts, [prompt_id(t) for t in texts]), strict=True))
    random.shuffle(texts)
    after = dict(zip(texts, cluster_prompts(texts, [prompt_id(t) for t in texts]), strict=True))
    assert before == after


def test_ten_thousand_prompts_are_clustered_in_seconds():
    random = np.random.default_rng(0)
    vocabulary = np.array(distinct(2500))
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    drawn = random.choice(vocabulary, size=(10_000, 6), p=weights / weights.sum())
    texts = [" ".join(row) for row in drawn]
    began = time.perf_counter()
    cluster_prompts(texts, [str(i) for i in range(len(texts))])
    assert time.perf_counter() - began < 30  # about 4 s alone on one core


WANTED = {
    "main": {"defence": 8, "attack": 5, "validation": 3, "test": "rest"},
    "other": {"test": "rest"},
    "safe": {"defence": 4, "attack": 4, "test": "rest"},
}


@st.composite
def three_sets(draw):
    """Three sets with room to spare, and near-twins within and across them."""
    parts = []
    for place, (name, n) in enumerate({"main": 40, "other": 12, "safe": 24}.items()):
        texts = distinct(n, offset=1000 * place)
        twins = draw(st.lists(st.sampled_from(distinct(10, offset=0)), max_size=8))
        texts += [f"{text} extra{letter}" for text, letter in zip(twins, "abcdefgh", strict=False)]
        parts.append(table(dict.fromkeys(texts), name, "safe" if name == "safe" else "harmful"))
    # The same text under both labels is an error of its own.
    joined = pd.concat(parts, ignore_index=True)
    return joined[~joined.prompt_id.duplicated() | (joined["set"] == "main")].reset_index(drop=True)


@given(three_sets(), st.integers(0, 5), st.randoms(use_true_random=False))
@SETTINGS
def test_splits_keep_clusters_whole_and_sizes_exact_whatever_the_order(prompts, seed, random):
    result, summary = split_sets(prompts, WANTED, seed)
    assert (result.groupby("cluster")["split"].nunique() == 1).all()
    for block in jaccard_blocks(list(result["prompt"])):
        for i, j, value in zip(*block, strict=True):
            assert value < 0.5 or result.split[i] == result.split[j]
    for row in summary[summary["split"].isin(SPLITS)].itertuples():
        held = ((result["set"] == row.set) & (result["split"] == row.split)).sum()
        assert held == row.n
        assert row.asked == "rest" or row.n == row.asked
    assert summary.n.sum() == len(prompts)
    shuffled = prompts.sample(frac=1, random_state=random.randrange(1000)).reset_index(drop=True)
    pd.testing.assert_frame_equal(result, split_sets(shuffled, WANTED, seed)[0])


def test_seed_changes_the_splits_and_one_more_prompt_hardly_does():
    prompts = table(distinct(60))
    wanted = {"main": {"defence": 20, "attack": 10, "test": "rest"}}

    def splits(frame, seed):
        return split_sets(frame, wanted, seed)[0].set_index("prompt_id")["split"]

    first = splits(prompts, 0)
    assert (first != splits(prompts, 1)[first.index]).sum() > 10
    longer = splits(pd.concat([prompts, table(distinct(1, offset=500))], ignore_index=True), 0)
    assert (first != longer[first.index]).sum() <= 3


def test_sets_that_lack_a_split_drop_near_twins_and_duplicates():
    large = distinct(20)
    small = [f"{text} more" for text in large[:10]] + large[10:15] + distinct(10, offset=500)
    prompts = pd.concat([table(large, "large"), table(small, "small")], ignore_index=True)
    wanted = {"small": {"test": "rest"}, "large": {"defence": 10, "test": "rest"}}
    prompts = pd.concat([prompts, table(distinct(20, offset=900), "large")], ignore_index=True)
    result, summary = split_sets(prompts, wanted, 0)
    counts = summary[summary["set"] == "small"].set_index("split")["n"]
    mine, theirs = (result[result["set"] == name] for name in ("small", "large"))
    trained = set(theirs.loc[theirs["split"] == "defence", "cluster"])
    assert trained.isdisjoint(mine["cluster"])
    assert counts["dropped_duplicate"] == 5
    assert counts["dropped_near_twin"] == sum(
        theirs.set_index("prompt").loc[text, "split"] == "defence" for text in large[:10]
    )
    assert counts["test"] == len(mine)


def test_sources_are_mixed_alike_in_every_split():
    prompts = pd.concat([table(distinct(60), source="a"), table(distinct(40, 500), source="b")], ignore_index=True)
    result, _ = split_sets(prompts, {"main": {"defence": 30, "attack": 10, "test": "rest"}}, 3)
    shares = result.groupby("split")["source"].value_counts().unstack()
    assert shares.loc["defence"].to_dict() == {"a": 18, "b": 12}
    assert shares.loc["attack"].to_dict() == {"a": 6, "b": 4}
    assert shares.loc["test"].to_dict() == {"a": 36, "b": 24}


def test_a_large_family_goes_to_the_widest_split():
    family = [f"alpha beta gamma delta {word}" for word in distinct(10)]
    prompts = table(family + distinct(50, offset=500))
    for seed in range(5):
        result, _ = split_sets(prompts, {"main": {"defence": 30, "attack": 12, "test": "rest"}}, seed)
        assert set(result.set_index("prompt").loc[family, "split"]) == {"defence"}


def test_too_small_and_empty_sets_say_how_many():
    wanted = {"main": {"defence": 20, "attack": 10, "test": "rest"}}
    with pytest.raises(UserError, match=r"prompt_sets\.main: its splits ask for 31 prompts and there are 30"):
        split_sets(table(distinct(30)), wanted, 0)
    with pytest.raises(UserError, match=r"prompt_sets\.main: no prompt was read"):
        split_sets(table([]), wanted, 0)


def test_a_set_that_only_repeats_another_is_refused():
    texts = distinct(30)
    prompts = pd.concat([table(texts, "a"), table(texts, "b")], ignore_index=True)
    with pytest.raises(UserError, match=r"prompt_sets\.b: its splits ask for 1 prompts and there are 0 \(30 more"):
        split_sets(prompts, {"a": {"attack": 10, "test": "rest"}, "b": {"test": "rest"}}, 0)


def test_a_split_that_no_cluster_fits_is_refused():
    family = [f"alpha beta gamma delta {word}" for word in distinct(10)]
    with pytest.raises(UserError, match=r"prompt_sets\.main\.splits\.attack: no near-twin cluster fits"):
        split_sets(table(family), {"main": {"attack": 4, "test": "rest"}}, 0)


def test_a_prompt_in_two_splits_is_refused():
    prompts = pd.concat(
        [table(["Say hello"], "a").assign(split="defence"), table(["say hello!"], "b").assign(split="test")]
    )
    with pytest.raises(UserError, match=r"defence of prompt_sets\.a and test of prompt_sets\.b"):
        check_leakage(prompts.reset_index(drop=True))
