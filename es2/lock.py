"""A lock that keeps a second copy of a running job away from its checkpoints, and does not outlive its holder for long.

A file that one process can create, not `flock`, which shared file systems support badly. A killed holder leaves it
behind, so that whoever finds it judges whether the holder still lives: on the same machine by its process; of a SLURM
job that was queued again and runs elsewhere now, by the job's number; else by whether the file is touched while it
looks on, so that no two clocks are compared. Torch-free.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from es2.errors import UserError

BEAT_SECONDS = 15.0
WATCH_SECONDS = 90.0

Holder = Mapping[str, str]


@contextmanager
def locked(folder: str | Path, beat: float = BEAT_SECONDS, watch: float = WATCH_SECONDS) -> Iterator[None]:
    """Hold the lock beside `folder` (its name with `.lock`) while the block runs, touching it every `beat` seconds.

    Raises UserError if another process holds it: at once, or within `watch` seconds where only its beat can tell. A
    process whose lock was taken, since it stood still for so long, ends when it goes on.
    """
    path = Path(folder).with_name(f"{Path(folder).name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = _myself()
    while not _create(path, mine):
        _remove_dead(path, mine, watch)
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, mine, beat, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _myself() -> Holder:
    """Who this process is, as the lock's file says it."""
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "started": _started(os.getpid()),
        "slurm_job": os.environ.get("SLURM_JOB_ID", ""),
        "token": secrets.token_hex(8),
    }


def _started(pid: int) -> str:
    """When a process started (boot, and clock ticks since), for its number may be given again; "" if it has ended."""
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return "" if state == "Z" else f"{boot}/{fields[18]}"
    return ""


def _create(path: Path, mine: Holder) -> bool:
    """Make the file, if there is none."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(mine, stream)
    return True


def _read(path: Path) -> Holder | None:
    """Who holds the lock; {} if the file was not written to its end, None if there is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _remove_dead(path: Path, mine: Holder, watch: float) -> None:
    """Take a dead holder's file away. Raises UserError if the holder lives."""
    holder = _read(path)
    if holder is None:
        return
    if _lives(path, holder, mine, watch):
        raise UserError(_sentence(path, _read(path) or holder))
    # Of two that find it dead one renames it; the other may catch the first one's new lock, and gives it back.
    caught = path.with_name(f".{path.name}.{mine['token']}")
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, caught)
        if _read(caught) == holder:
            caught.unlink()
        else:
            os.rename(caught, path)


def _lives(path: Path, holder: Holder, mine: Holder, watch: float) -> bool:
    if holder.get("host") == mine["host"]:
        return holder["started"] == _started(int(holder["pid"]))
    if mine["slurm_job"] and holder.get("slurm_job") == mine["slurm_job"]:
        return False
    print(f"{path}: waiting for at most {watch:.0f} s to see whether its holder still lives", file=sys.stderr)
    first, end = _touched(path), time.monotonic() + watch
    while first == (now := _touched(path)) and time.monotonic() < end:
        time.sleep(min(1.0, watch / 10))
    return now not in (first, None)


def _touched(path: Path) -> int | None:
    """When the file was last touched (ns); opened, since a shared file system looks anew only then."""
    try:
        with open(path, "rb") as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _sentence(path: Path, holder: Holder) -> str:
    number = holder.get("slurm_job")
    job = f", SLURM job {number}" if number else ""
    who = f"process {holder['pid']} on {holder['host']}{job}" if holder else "another process"
    end = f"cancel it (scancel {number})" if number else "end it"
    return f"{path}: {who} is at this job already; let it finish, or {end}, and run the same command again"


def _beat(path: Path, mine: Holder, every: float, done: threading.Event) -> None:
    """Touch the lock until the work is done; end the whole process if the lock has become another's."""
    while not done.wait(every):
        # A shared file system that fails for a moment must not end the beat; the next one looks again.
        with contextlib.suppress(OSError):
            if _read(path) != mine:
                print(f"{path}: another job took this lock while this one stood still; let it finish", file=sys.stderr)
                os._exit(1)
            os.utime(path)
