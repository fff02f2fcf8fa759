"""The lock beside a checkpoint: one holder at a time, and none that is dead keeps others out."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from es2.errors import UserError
from es2.lock import locked

ROOT = Path(__file__).parents[1]
HOLD = """
import sys, time
from es2.lock import locked
with locked(sys.argv[1], beat=0.05):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "checkpoints"


def lock_of(folder: Path) -> Path:
    return folder.with_name("checkpoints.lock")


@pytest.fixture
def other(folder):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def claim(folder: Path, **changes: str) -> None:
    """Write the file of a holder that is described as this process is, but for some changes."""
    with locked(folder):
        holder = json.loads(lock_of(folder).read_text())
    lock_of(folder).write_text(json.dumps(holder | {"token": "other"} | changes))


def enter(folder: Path, watch: float = 0.05) -> bool:
    with locked(folder, watch=watch):
        return lock_of(folder).is_file()


def test_the_lock_goes_with_its_block_even_after_an_error(folder):
    with locked(folder):
        assert lock_of(folder).is_file()
    with pytest.raises(ZeroDivisionError), locked(folder):
        _ = 1 / 0
    assert not list(folder.parent.iterdir())


def test_a_second_copy_ends_in_one_sentence(folder, other):
    with pytest.raises(UserError, match=rf"process {other.pid} on .* is at this job already; let it finish, or end it"):
        enter(folder)
    assert lock_of(folder).is_file()


def test_a_killed_holder_blocks_nothing(folder, other):
    other.kill()
    other.wait()
    assert lock_of(folder).is_file()
    assert enter(folder)
    assert not lock_of(folder).exists()


def test_a_process_with_the_number_of_a_dead_one_is_not_it(folder):
    claim(folder, started="another boot/1")
    assert enter(folder)


def test_a_requeued_job_takes_up_its_own_lock_on_another_machine(folder, monkeypatch):
    claim(folder, host="elsewhere", slurm_job="17")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert enter(folder, watch=60)


def test_a_job_elsewhere_lives_as_long_as_it_touches_the_lock(folder, capsys):
    claim(folder, host="elsewhere", slurm_job="17")
    stop = threading.Event()

    def touch() -> None:
        while not stop.wait(0.01):
            os.utime(lock_of(folder))

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"on elsewhere, SLURM job 17 is at this job .* cancel it \(scancel 17\)"):
            enter(folder, watch=60)
    finally:
        stop.set()
        thread.join()
    assert "still lives" in capsys.readouterr().err
    assert enter(folder)


def test_a_file_that_was_not_written_to_its_end_is_taken_over(folder):
    folder.parent.mkdir()
    lock_of(folder).write_text("")
    assert enter(folder)


def test_a_holder_that_lost_its_lock_ends(folder, other):
    claimed = json.loads(lock_of(folder).read_text()) | {"token": "other"}
    lock_of(folder).write_text(json.dumps(claimed))
    assert other.wait(timeout=60) == 1
    assert json.loads(lock_of(folder).read_text()) == claimed


def test_a_moments_failure_of_the_file_system_does_not_end_the_beat(folder, other):
    """A folder in the lock's place cannot be read as a file; once the lock is back, its holder watches it again."""
    lock = lock_of(folder)
    kept = lock.read_text()
    lock.unlink()
    lock.mkdir()
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(timeout=0.5)
    lock.rmdir()
    lock.write_text(json.dumps(json.loads(kept) | {"token": "other"}))
    assert other.wait(timeout=60) == 1


def test_of_many_that_find_it_dead_one_at_a_time_holds_it(folder):
    claim(folder, started="another boot/1")
    held, said = threading.Lock(), Counter()

    def work() -> None:
        try:
            with locked(folder):
                said["alone" if held.acquire(blocking=False) else "together"] += 1
                held.release()
        except UserError:
            said["refused"] += 1

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said["alone"] >= 1
    assert said["alone"] + said["refused"] == 16
