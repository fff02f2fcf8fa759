"""The threshold of a judge that goes by odds: the best of all, and one that other models' labels set."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from es2.thresholds import best_threshold, held_out


def test_the_best_threshold_is_the_best_of_a_fine_grid() -> None:
    random = np.random.default_rng(0)
    complied = random.random(60) < 0.6
    odds = random.normal(size=60) + 1.5 * complied - 4.0
    found = best_threshold(odds, complied)
    grid = np.linspace(odds.min() - 0.1, odds.max() + 0.1, 4000)
    best = max(cohen_kappa_score(complied, odds > one) for one in grid)
    assert cohen_kappa_score(complied, odds > found) == pytest.approx(best)
    assert best < 1


def test_a_gap_is_cut_in_the_middle() -> None:
    assert best_threshold(np.array([-3.0, -1.0, 2.0, 4.0]), np.array([False, False, True, True])) == 0.5
    assert best_threshold(np.array([2.0, 2.0]), np.array([True, False])) == 2.0


def test_no_models_own_labels_set_its_threshold() -> None:
    frame = pd.DataFrame(
        {
            "source_model": ["one"] * 4 + ["two"] * 4,
            "label": ["refusal", "partial", "compliance", "compliance"] * 2,
            "odds": [-2.0, -1.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0],
            "verdict": "refusal",
        }
    )
    found = held_out(frame)
    assert found.groupby("source_model", sort=False)["threshold"].first().to_dict() == {"one": 5.0, "two": 0.0}
    assert found["verdict"].tolist() == ["refusal"] * 4 + ["compliance"] * 4
    other = frame.assign(label=["compliance"] * 4 + frame["label"].tolist()[4:])
    assert held_out(other)["verdict"].tolist()[:4] == ["refusal"] * 4
    broken = held_out(frame.assign(verdict=["degenerate"] + ["compliance"] * 7))
    assert broken["verdict"].tolist() == ["degenerate"] + ["refusal"] * 3 + ["compliance"] * 4
