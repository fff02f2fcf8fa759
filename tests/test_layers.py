"""Which layers a training acts on: the rule keeps count, window and gap, and a run's own word goes first."""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from es2.errors import UserError
from es2.files import write_json
from es2.layers import LayerRule, chosen_layers, layers_of_runs


def test_layers_are_the_best_far_enough_apart() -> None:
    scores = [9.0, 1.0, 5.0, 6.0, 4.0, 2.0, 3.0, 9.0, 9.0, 9.0]
    assert LayerRule(2, (0.2, 0.75), 0.3).choose(scores) == [3, 6]
    assert LayerRule(1, (0.0, 1.0), 0.3).choose(scores) == [0]


def test_a_best_layer_that_leaves_no_room_is_passed_over() -> None:
    assert LayerRule(2, (0.0, 1.0), 0.6).choose([1.0, 2.0, 9.0, 2.0, 1.5]) == [1, 4]


def test_a_best_layer_that_leaves_poor_ones_is_passed_over() -> None:
    """Layer 2 is the best by itself and leaves 0 and 4; 1 and 3 are worth more together."""
    assert LayerRule(2, (0.0, 1.0), 0.4).choose([0.1, 4.0, 4.1, 4.0, 0.1]) == [1, 3]


def test_layers_that_do_not_fit_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"3 layers, 4 apart, do not fit into window \[0\.3, 0\.6\] of 10 layers"):
        LayerRule(3, (0.3, 0.6), 0.4).choose([1.0] * 10)


@pytest.mark.parametrize("depth", [12, 16, 24, 30, 32, 40, 80])
def test_the_default_rules_fit_models_of_any_depth(depth: int) -> None:
    """A gap is a share of the depth, so that as many layers fit a shallow model as fit a deep one."""
    scores = [float(k) for k in range(depth)]
    three, two = LayerRule(3, (0.3, 0.8), 0.15).choose(scores), LayerRule(2, (0.57, 0.8), 0.1).choose(scores)
    assert (len(three), len(two)) == (3, 2)
    assert all(b - a >= 0.15 * depth for a, b in pairwise(three))
    assert two[1] - two[0] >= 0.1 * depth


@given(
    st.lists(st.floats(-5, 5) | st.just(float("nan")), min_size=1, max_size=14),
    st.integers(1, 4), st.integers(0, 50), st.integers(0, 50), st.integers(50, 100),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_layers_are_the_best_set_that_keeps_gap_and_window(
    scores: list[float], count: int, gap: int, low: int, high: int
) -> None:
    """The window's ends and the gap are hundredths, so that what fits can be told without rounding."""
    rule, depth = LayerRule(count, (low / 100, high / 100), gap / 100), len(scores)
    inside = [k for k in range(depth) if low * depth <= 100 * (k + 1) <= high * depth]
    fits = any(all(100 * (b - a) >= gap * depth for a, b in pairwise(some)) for some in combinations(inside, count))
    if not fits:
        with pytest.raises(UserError):
            rule.choose(scores)
        return
    chosen = rule.choose(scores)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(inside)
    assert all(100 * (b - a) >= gap * depth for a, b in pairwise(chosen))
    nan, total = _worth(scores, chosen)
    for some in combinations(inside, count):
        if all(100 * (b - a) >= gap * depth for a, b in pairwise(some)):
            other_nan, other_total = _worth(scores, some)
            assert nan <= other_nan
            assert nan < other_nan or total >= other_total - 1e-9


def _worth(scores: list[float], layers: Sequence[int]) -> tuple[int, float]:
    """Number of NaN among the layers' scores, and the sum of the others."""
    found = [scores[k] for k in layers]
    return sum(map(math.isnan, found)), math.fsum(x for x in found if not math.isnan(x))


def test_a_run_takes_the_studys_choice_its_own_list_or_its_own_rule(tmp_path: Path) -> None:
    path = tmp_path / "layers.json"
    write_json(path, {"layers": [3, 7], "rule": "d_prime", "validation_d_prime": [0.0, 4.0, 2.0, 3.0, 1.0]})
    assert chosen_layers("auto", path) == [3, 7]
    assert chosen_layers([12, 18], path) == [12, 18]
    rule = {"count": 2, "window": [0.0, 1.0], "gap": 0.4}
    assert chosen_layers(rule, path) == [1, 3]
    assert layers_of_runs({"es2": "auto", "es2_two": rule}, [path, path]) == {"es2": [3, 7], "es2_two": [1, 3]}
