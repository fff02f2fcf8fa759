"""A job does not read what is no longer as another job left it."""

from pathlib import Path

import pytest
from jobs import done, run, stand_in, writes

ONE, TWO, THREE = (f"results/mine/{name}.csv" for name in ("one", "two", "three"))


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """A working directory with a source, and what two jobs made of it."""
    monkeypatch.chdir(tmp_path)
    Path("source.txt").write_text("words")
    done("first", ["source.txt"], {ONE: "n\n1\n2\n"})
    done("second", ["source.txt"], {TWO: "n\n3\n"}, wildcards={"model": "tiny", "run": "es2"})


def third(*inputs: str) -> None:
    run(stand_in("third", inputs, [THREE]), writes({THREE: "made"}))


def refused(capsys: pytest.CaptureFixture[str], *inputs: str) -> str:
    with pytest.raises(SystemExit):
        third(*inputs)
    assert not Path(THREE).exists()
    return capsys.readouterr().err


def test_what_was_left_is_read():
    third("source.txt", ONE, TWO)
    assert Path(THREE).read_text() == "made"


def test_a_file_cut_where_a_line_ends_is_named_with_its_job(capsys):
    Path(ONE).write_text("n\n1\n")
    assert refused(capsys, ONE, TWO) == (
        f"{ONE}: not as first left it, so it was damaged or edited since; delete it and run the same command again\n"
    )


def test_a_file_of_the_same_length_with_another_byte(capsys):
    Path(TWO).write_text("n\n4\n")
    assert refused(capsys, TWO).startswith(f"{TWO}: not as second (model tiny, run es2) left it")


def test_all_that_are_damaged_are_named_at_once(capsys):
    Path(ONE).write_text("")
    Path(TWO).write_text("")
    assert refused(capsys, ONE, TWO).startswith(f"{ONE}, {TWO}: not as first, second (model tiny, run es2) left it")


def test_it_is_read_when_its_job_has_made_it_again():
    Path(ONE).unlink()
    done("first", ["source.txt"], {ONE: "n\n5\n"})
    third(ONE)
    assert Path(THREE).exists()


def test_a_source_may_change_for_no_job_made_it():
    Path("source.txt").write_text("other words")
    third("source.txt", ONE)
    assert Path(THREE).exists()


def test_a_file_outside_of_the_study_is_nobodys(tmp_path):
    outside = tmp_path.parent / "outside.csv"
    outside.write_text("n\n")
    third(str(outside))
    assert Path(THREE).exists()


def test_a_record_that_was_damaged_itself_is_named(capsys):
    (record,) = Path("results/mine/provenance/first").rglob("*.json")
    record.write_text("{")
    said = refused(capsys, ONE)
    assert said.startswith(f"{record}: this record cannot be read")
    assert said.endswith("delete it, and run its job again\n")


def test_a_record_that_goes_while_the_others_are_read_counts_as_gone():
    """Its job, which runs at the same time, takes it away before it makes its files again."""
    gone = Path("results/mine/provenance/another/job.json")
    gone.parent.mkdir(parents=True)
    gone.symlink_to("nowhere")  # listed, but not there when it is opened
    third(ONE)
    assert Path(THREE).read_text() == "made"
