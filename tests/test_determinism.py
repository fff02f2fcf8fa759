"""The comparison of two runs of a study finds what differs, and minds no times."""

import pytest
from determinism import different_files


@pytest.fixture
def twins(tmp_path):
    """Two results that are equal."""
    for name in ("one", "two"):
        (tmp_path / name / "tables").mkdir(parents=True)
        (tmp_path / name / "tables/training.csv").write_text("step,loss\n1,2.5\n")
    return tmp_path / "one", tmp_path / "two"


def test_equal_results_are_equal_and_times_do_not_count(twins):
    for results, time in zip(twins, ("1", "2"), strict=True):
        (results / "tables/cost.csv").write_text(time)
    assert different_files(*twins) == []


def test_a_byte_and_a_missing_file_are_found(twins):
    (twins[1] / "findings.rst").write_text("x")
    (twins[1] / "tables/training.csv").write_text("step,loss\n1,2.500001\n")
    assert different_files(*twins) == ["findings.rst", "tables/training.csv"]
    assert different_files(*reversed(twins)) == ["findings.rst", "tables/training.csv"]
