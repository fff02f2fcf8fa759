"""What strikes a study, and what is read of how it went (tests/faults.py); the faults themselves take minutes."""

import pytest
from faults import Study, cut, main, same

SAID = """
[Wed Nov 25 23:03:26 2026]
localrule fetch_source:
    jobid: 3
rule finetune:
    jobid: 59
Finished jobid: 3 (Rule: fetch_source)
1 of 55 steps (2%) done
"""


@pytest.fixture
def study(tmp_path):
    """A finished study of one adapter and twelve tables, and what Snakemake said."""
    made = Study(tmp_path)
    tables = made.results / "tables"
    (tables / "contest").mkdir(parents=True)
    for number in range(12):
        (tables / f"{number}.csv").write_text("n\n1\n")
    (tables / "cost.csv").write_text("seconds\n1\n")
    (tables / "contest/dsr.csv").write_text("of a sweep")
    (made.results / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "said.log").write_text(SAID)
    return made


@pytest.mark.parametrize(
    ("name", "before", "after"), [("a.csv", "n\n1\n22\n3\n", "n\n1\n"), ("b.bin", "abcdef", "abc")]
)
def test_a_text_is_cut_where_a_line_ends(tmp_path, name, before, after):
    (tmp_path / name).write_text(before)
    cut(tmp_path / name)
    assert (tmp_path / name).read_text() == after


def test_jobs_are_counted_by_what_snakemake_says(study):
    assert study.begun() == ["fetch_source", "finetune"]
    assert study.finished() == 1
    assert study.scripts() == []


def test_times_and_sweeps_do_not_count_and_bytes_do(study, tmp_path):
    assert sorted(study.made()) == sorted([*(f"tables/{n}.csv" for n in range(12)), "adapter_model.safetensors"])
    same(study, study)
    other = Study(tmp_path / "other")
    (other.results / "tables").mkdir(parents=True)
    with pytest.raises(AssertionError, match="adapter_model"):
        same(study, other)
    for name, content in study.made().items():
        (other.results / name).write_bytes(content)
    same(study, other)
    (other.results / "tables/3.csv").write_text("n\n2\n")
    with pytest.raises(AssertionError, match=r"tables/3\.csv"):
        same(study, other)


def test_a_fault_that_there_is_not_is_said(capsys):
    with pytest.raises(SystemExit):
        main(["flood"])
    assert "there is no fault 'flood'; there are killed, full, unreadable" in capsys.readouterr().err
