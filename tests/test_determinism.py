"""The comparison of two runs of a study finds what differs, and minds neither times nor the last digits of a loss."""

import shutil

import pandas as pd
import pytest
from determinism import CELL, different_files, different_losses, different_shares


@pytest.fixture
def twins(tmp_path):
    """Two results that are equal."""
    for name in ("one", "two"):
        (tmp_path / name / "tables").mkdir(parents=True)
        training = pd.DataFrame({"run": ["es2"] * 2, "step": [1, 2], "loss": [2.5, 1.25], "kl": [0.0, float("nan")]})
        training["drift"] = [0.1, 0.2]
        training.to_csv(tmp_path / name / "tables/training.csv", index=False)
        cells = pd.DataFrame([dict.fromkeys(CELL, "a") | {"attack": attack} for attack in ("direct", "scav")])
        cells = cells.assign(n=16, refusal=0.5, compliance=0.25, degenerate=0.25)
        cells.to_csv(tmp_path / name / "tables/dsr.csv", index=False)
    return tmp_path / "one", tmp_path / "two"


@pytest.fixture
def reseeded(twins, tmp_path):
    """The same trainings at another seed, which changes the drift by 0.02."""
    shutil.copytree(twins[0], tmp_path / "reseeded")
    change(tmp_path / "reseeded", "training.csv", "drift", 1, 0.02)
    return tmp_path / "reseeded"


def change(results, table: str, column: str, row: int, by: float) -> None:
    path = results / "tables" / table
    frame = pd.read_csv(path)
    frame.loc[row, column] += by
    frame.to_csv(path, index=False)


def test_equal_results_are_equal_and_times_do_not_count(twins):
    for results, time in zip(twins, ("1", "2"), strict=True):
        (results / "tables/cost.csv").write_text(time)
    assert different_files(*twins) == []
    assert different_losses(*twins, twins[0]) == []
    assert different_shares(*twins) == ([], 0)


def test_a_byte_and_a_missing_file_are_found(twins):
    (twins[1] / "findings.rst").write_text("x")
    change(twins[1], "dsr.csv", "refusal", 0, 1e-9)
    assert different_files(*twins) == ["findings.rst", "tables/dsr.csv"]


def test_a_loss_may_differ_in_its_last_digits_alone(twins, reseeded):
    change(twins[1], "training.csv", "loss", 0, 1e-5)
    assert different_losses(*twins, reseeded) == []
    change(twins[1], "training.csv", "loss", 1, 1e-3)
    assert different_losses(*twins, reseeded) == ["training.csv: loss differs by 0.001, where 0.00013 is allowed"]


def test_the_states_may_differ_by_a_tenth_of_what_the_seed_changes(twins, reseeded):
    change(twins[1], "training.csv", "drift", 1, 1.9e-3)
    assert different_losses(*twins, reseeded) == []
    change(twins[1], "training.csv", "drift", 1, 0.2e-3)
    assert different_losses(*twins, reseeded) == ["training.csv: drift differs by 0.0021, where 0.002 is allowed"]


def test_a_number_that_is_missing_in_one_is_found(twins, reseeded):
    change(twins[1], "training.csv", "drift", 1, float("nan"))
    assert len(different_losses(*twins, reseeded)) == 1


def test_the_direct_requests_shares_may_differ_by_one_answer(twins):
    change(twins[1], "dsr.csv", "refusal", 0, 1 / 16)
    change(twins[1], "dsr.csv", "refusal", 1, 4 / 16)
    assert different_shares(*twins) == ([], 4)
    change(twins[1], "dsr.csv", "refusal", 0, 1 / 16)
    wrong, most = different_shares(*twins)
    assert (len(wrong), most) == (1, 4)
    assert "direct" in wrong[0]
