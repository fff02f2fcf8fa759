"""The comparison of two runs of a study finds what differs, and minds neither times nor the last digits of a loss."""

import json

import pandas as pd
import pytest
from determinism import CELL, different_files, different_losses, different_shares


@pytest.fixture
def twins(tmp_path):
    """Two results that are equal."""
    for name in ("one", "two"):
        (tmp_path / name / "tables").mkdir(parents=True)
        training = pd.DataFrame({"run": ["es2"] * 2, "step": [1, 2], "loss": [2.5, 1.25], "kl": [0.0, float("nan")]})
        training.to_csv(tmp_path / name / "tables/training.csv", index=False)
        cells = pd.DataFrame([dict.fromkeys(CELL, "a") | {"attack": attack} for attack in ("direct", "scav")])
        cells = cells.assign(n=16, refusal=0.5, compliance=0.25, degenerate=0.25)
        cells.to_csv(tmp_path / name / "tables/dsr.csv", index=False)
    return tmp_path / "one", tmp_path / "two"


def change(results, table: str, column: str, row: int, by: float) -> None:
    path = results / "tables" / table
    frame = pd.read_csv(path)
    frame.loc[row, column] += by
    frame.to_csv(path, index=False)


def test_equal_results_are_equal_and_times_do_not_count(twins):
    for results, time in zip(twins, ("1", "2"), strict=True):
        (results / "tables/cost.csv").write_text(time)
    assert different_files(*twins) == []
    assert different_losses(*twins) == []
    assert different_shares(*twins) == ([], 0)


def test_a_byte_and_a_missing_file_are_found(twins):
    (twins[1] / "findings.rst").write_text("x")
    change(twins[1], "dsr.csv", "refusal", 0, 1e-9)
    assert different_files(*twins) == ["findings.rst", "tables/dsr.csv"]


def test_the_orders_that_libraries_draw_do_not_count(twins):
    for results, names in zip(twins, (["a", "b"], ["b", "a"]), strict=True):
        (results / "adapter_config.json").write_text(json.dumps({"target_modules": names}))
        header = json.dumps({"__metadata__": dict.fromkeys(names, "1")}).encode()
        (results / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"weights")
    assert different_files(*twins) == []
    (twins[1] / "a.safetensors").write_bytes((twins[0] / "a.safetensors").read_bytes() + b"x")
    (twins[1] / "adapter_config.json").write_text(json.dumps({"target_modules": ["a"]}))
    assert different_files(*twins) == ["a.safetensors", "adapter_config.json"]


def test_a_loss_may_differ_in_its_last_digits_alone(twins):
    change(twins[1], "training.csv", "loss", 0, 1e-5)
    assert different_losses(*twins) == []
    change(twins[1], "training.csv", "loss", 1, 1e-3)
    assert different_losses(*twins) == ["training.csv: loss differs by more than 0.0001"]


def test_the_direct_requests_shares_may_differ_by_one_answer(twins):
    change(twins[1], "dsr.csv", "refusal", 0, 1 / 16)
    change(twins[1], "dsr.csv", "refusal", 1, 4 / 16)
    assert different_shares(*twins) == ([], 4)
    change(twins[1], "dsr.csv", "refusal", 0, 1 / 16)
    wrong, most = different_shares(*twins)
    assert (len(wrong), most) == (1, 4)
    assert "direct" in wrong[0]
