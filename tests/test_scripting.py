"""What a script runs in: its log, its threads, and one sentence for a user's mistake (its record: test_records)."""

import errno
import io
import os
import sys
from types import SimpleNamespace

import pytest
from jobs import stand_in, writes
from safetensors import SafetensorError

from es2.errors import UserError
from es2.scripting import Tee, job


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.chdir(tmp_path)
    writes({"results/table.csv": ""})()
    return stand_in("collect", [], ["results/table.csv"])


def log(snakemake):
    with open(snakemake.log[0], encoding="utf-8") as stream:
        return stream.read()


def test_stderr_goes_to_the_log_and_the_terminal_and_comes_back(snakemake, capsys):
    before = sys.stderr
    with job(snakemake):
        print("a warning", file=sys.stderr)
    assert log(snakemake) == capsys.readouterr().err == "a warning\n"
    assert sys.stderr is before


def test_a_quiet_script_says_nothing(snakemake, capsys):
    with job(snakemake):
        pass
    assert log(snakemake) == "".join(capsys.readouterr()) == ""


def test_threads_are_those_of_the_rule(snakemake):
    with job(snakemake):
        assert os.environ["OMP_NUM_THREADS"] == "1"


def test_a_users_mistake_is_one_sentence(snakemake, capsys):
    with pytest.raises(SystemExit) as raised, job(snakemake):
        raise UserError("training.steps: 0 is too few; give more")
    assert raised.value.code == 1
    assert log(snakemake) == capsys.readouterr().err == "training.steps: 0 is too few; give more\n"


def test_a_full_disk_is_one_sentence(snakemake):
    with pytest.raises(SystemExit), job(snakemake):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (
        log(snakemake) == "The disk that holds results/table.csv is full: make room and run the same command again.\n"
    )


def test_a_full_disk_is_known_by_the_words_of_a_library(snakemake):
    with pytest.raises(SystemExit), job(snakemake):
        raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(errno.ENOSPC)} (os error 28)")
    assert log(snakemake).startswith("The disk that holds results/table.csv is full: make room")


def test_a_missing_right_is_one_sentence_with_the_file(snakemake):
    with pytest.raises(SystemExit), job(snakemake):
        raise PermissionError(errno.EACCES, "Permission denied", "results/mine/table.csv")
    assert log(snakemake).startswith("results/mine/table.csv: this user may not read or write it; give the right")


@pytest.mark.parametrize("error", [ValueError("odd"), OSError(errno.EACCES, "no")])
def test_any_other_error_keeps_its_traceback(snakemake, error):
    with pytest.raises(SystemExit), job(snakemake):
        raise error
    assert "Traceback" in log(snakemake)
    assert str(error) in log(snakemake)


def test_an_interrupt_passes(snakemake):
    with pytest.raises(KeyboardInterrupt), job(snakemake):
        raise KeyboardInterrupt


def test_of_a_progress_bar_the_log_gets_the_last_state():
    terminal, written = io.StringIO(), io.StringIO()
    tee = Tee(terminal, written)
    for text in ("\rstep 1", "\rstep 2", "\rstep 3", "\n", "done"):
        assert tee.write(text) == len(text)
    tee.finish()
    assert written.getvalue() == "step 3\ndone\n"
    assert terminal.getvalue() == "\rstep 1\rstep 2\rstep 3\ndone"
    assert tee.isatty() is False


def test_a_job_lets_freed_memory_stay_where_the_c_library_can(snakemake, monkeypatch):
    asked = []
    library = SimpleNamespace(mallopt=lambda name, value: asked.append((name, value)))
    monkeypatch.setattr("es2.scripting.ctypes.CDLL", lambda _: library)
    with job(snakemake):
        assert asked == [(-4, 0), (-1, (1 << 31) - 1)]
    monkeypatch.setattr("es2.scripting.ctypes.CDLL", lambda _: SimpleNamespace())
    with job(snakemake):
        assert len(asked) == 2
