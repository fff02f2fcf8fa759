"""What becomes of a study when something goes wrong: killed, no room, no right to read, damaged, a wrong clock, twice.

    python -m tests.faults [--clean FOLDER] [--kills N] [fault ...]

The smoke study runs once undisturbed, unless FOLDER is a copy of the repository where it has run. Each fault then
strikes a copy. Afterwards the study must go on by itself, or say in a sentence what to do; this is then done, and all
tables and adapters must equal the undisturbed study's byte for byte (cost.csv, which tells times, aside).

    killed      N seeded SIGKILLs over all stages: of Snakemake and its scripts, of Snakemake alone, of a script alone
    full        a disk that is full half way (needs the right to mount one; else skipped)
    unreadable  a file that this user may not read (root needs setpriv to be such a user; else skipped)
    truncated   a file of each format cut to a half, one of them where a line ends
    clock       half of the files from a day ahead, and tables made again now
    twice       a second Snakemake while the first one runs
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.repository import copy_repository

CONFIG = "config/smoke.yaml"
RESULTS = Path("results/smoke")
SEED = 0
DAY_NS = 86_400 * 10**9
DAMAGED = [
    "tables/dsr.csv",
    "models/tiny/es2/s0/answers/direct.jsonl",
    "models/tiny/base/s0/layers.json",
    "models/tiny/es2/s0/embeddings.safetensors",
    "prompts/stand_in.parquet",
]
UNLOCK, BUSY = "--unlock", "is at this job already; let it finish"


class Skipped(Exception):  # noqa: N818
    """This machine cannot show the fault, and why."""


class Study:
    """The smoke study in a folder that holds a copy of the repository."""

    def __init__(self, folder: Path, log: str = "said.log") -> None:
        self.folder = folder
        self.results = folder / RESULTS
        self._log = folder / log
        self._process: subprocess.Popen[bytes]

    def begin(self, *arguments: str, before: Iterable[str] = ()) -> None:
        """Start Snakemake in a process group of its own, by way of the command `before` if one is given."""
        command = [*before, sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", CONFIG, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def said(self) -> str:
        """What Snakemake has said since it was started."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def run(self, *arguments: str) -> str:
        """Run Snakemake to its end, which must be good; what it said."""
        self.begin(*arguments)
        assert self.ends(), self.said()[-3000:]
        return self.said()

    def ends(self) -> bool:
        """Wait for Snakemake to end; whether it ended well. If not, it must have told nobody a traceback."""
        well = self._process.wait() == 0
        assert well or "Traceback (most recent call last)" not in self.said(), self.said()[-3000:]
        return well

    def fails(self) -> str:
        """Wait for Snakemake, which must fail; what it said."""
        assert not self.ends(), "it was to fail"
        return self.said()

    def goes_on(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Run Snakemake until something has happened, True, or to its good end, False; do what it says on the way."""
        for _ in range(5):
            self.begin()
            while self._process.poll() is None:
                if until():
                    return True
                time.sleep(0.02)
            if self._process.returncode == 0:
                return False
            said = self.fails()
            if UNLOCK in said:
                self.run(UNLOCK)
            elif BUSY in said:
                while self.scripts():
                    time.sleep(0.2)
            else:
                raise AssertionError(said[-3000:])
        raise AssertionError(f"it was told five times what to do: {self.said()[-3000:]}")

    def kill(self, how: str) -> None:
        """Kill all of it, or Snakemake alone, or the script alone that has run longest."""
        if how == "script":
            os.kill(self.scripts()[0], signal.SIGKILL)
            assert "Error in rule" in self.fails()
        elif how == "Snakemake":
            self._process.kill()
        else:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def begun(self) -> list[str]:
        """The rules of the jobs begun since Snakemake was started."""
        return re.findall(r"^(?:local)?rule (\w+):$", self.said(), re.MULTILINE)

    def finished(self) -> int:
        """The number of jobs finished since Snakemake was started."""
        return len(re.findall(r"^Finished jobid", self.said(), re.MULTILINE))

    def scripts(self) -> list[int]:
        """The processes that run a script of this study, the longest running one first."""
        mark = f"{self.folder}/.snakemake/scripts/".encode()
        commands = {entry: _content(entry / "cmdline") for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        found = [entry for entry, command in commands.items() if mark in command and b"python" in command[:200]]
        return sorted(int(entry.name) for entry in found if b"/bin/bash" not in commands[entry][:20])

    def made(self) -> dict[str, bytes]:
        """{name: bytes} of the main study's tables and of all adapters."""
        files = [*(self.results / "tables").glob("*.csv"), *self.results.rglob("adapter_model.safetensors")]
        return {str(path.relative_to(self.results)): path.read_bytes() for path in files if path.name != "cost.csv"}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


def killed(clean: Study, study: Study, kills: int = 10) -> str:
    """Kill it wherever another share of its jobs is done: all of it, Snakemake, and a script by turns."""
    shutil.rmtree(study.folder)
    copy_repository(study.folder)
    chance, jobs = random.Random(SEED), len(list((clean.folder / "logs").rglob("*.log")))
    struck, done = [], 0
    for number in range(kills):
        share = round((number + chance.random()) * jobs / kills) - done
        there = study.goes_on(until=lambda share=share: study.finished() >= share and bool(study.scripts()))
        assert there, f"the study was over after {number} kills of {kills}"
        time.sleep(chance.uniform(0, 1))
        how = ("all of it", "Snakemake", "script")[number % 3]
        how = how if study.scripts() else "all of it"
        struck.append(f"{how} at {study.begun()[-1]}")
        study.kill(how)
        done += study.finished()
    study.goes_on()
    return "; ".join(struck)


def full(clean: Study, study: Study) -> str:
    """Give the results half the room that they need, and then more."""
    shutil.rmtree(study.folder)
    copy_repository(study.folder)
    needed = sum(path.stat().st_size for path in clean.results.rglob("*") if path.is_file())
    with small_disk(study.folder / "results", needed // 2) as grow:
        study.begin()
        assert "is full: make room" in study.fails()
        grow(needed * 4)
        study.goes_on()
        same(clean, study)
    return f"at {needed // 2} bytes"


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """A disk of so many bytes at a folder; yields what gives it another size."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        raise Skipped("this user may not mount a disk")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def unreadable(clean: Study, study: Study) -> str:
    """Take the right to read a file away, and give it back."""
    before: list[str] = []
    if os.getuid() == 0:
        if shutil.which("setpriv") is None:
            raise Skipped("root may read everything, and there is no setpriv to take that away")
        less = "-dac_override,-dac_read_search"
        before = ["setpriv", f"--bounding-set={less}", f"--inh-caps={less}"]
    file = study.results / "models/tiny/es2/s0/training.csv"
    (study.results / "tables/training.csv").unlink()
    mode = file.stat().st_mode
    file.chmod(0)
    study.begin(before=before)
    said = study.fails()
    assert f"{file.relative_to(study.folder)}: this user may not read" in said, said[-3000:]
    file.chmod(mode)
    study.goes_on()
    return file.name


def truncated(clean: Study, study: Study) -> str:
    """Cut a file of each format in turn: a job must name it before it reads it; then it is deleted, as was said."""
    for name in DAMAGED:
        cut(study.results / name)
        study.begin()
        assert f"{RESULTS / name}: not as " in study.fails(), study.said()[-3000:]
        (study.results / name).unlink()
        study.goes_on()
        same(clean, study)
    return f"{len(DAMAGED)} files, each named and made again"


def cut(path: Path) -> None:
    """Cut a file to a half; a text where a line ends, so that it can be read."""
    content = path.read_bytes()
    half = content[: len(content) // 2]
    path.write_bytes(half[: half.rfind(b"\n") + 1] if path.suffix in (".jsonl", ".csv") else half)


def clock(clean: Study, study: Study) -> str:
    """Half of the files from a day ahead: nothing runs, and what is deleted is made again as docs/faults.md says."""
    files = sorted(path for path in study.folder.joinpath("results").rglob("*") if path.is_file())
    for path in random.Random(SEED).sample(files, len(files) // 2):
        ahead = path.stat().st_mtime_ns + DAY_NS
        os.utime(path, ns=(ahead, ahead))
    said = study.run()
    assert "Nothing to be done" in said, said[-3000:]
    _delete_tables(study)
    study.begin()
    assert "This could indicate a clock skew problem" in study.fails()
    now = time.time()
    for path in study.results.rglob("*"):
        if path.stat().st_mtime > now:
            os.utime(path)
    study.goes_on()
    again = study.run()
    assert "Nothing to be done" in again, again[-3000:]
    return f"{len(files) // 2} files from a day ahead"


def _delete_tables(study: Study) -> None:
    for path in (study.results / "tables").glob("*.csv"):
        path.unlink()


def twice(clean: Study, study: Study) -> str:
    """Start a second one while the first one runs."""
    _delete_tables(study)
    second = Study(study.folder, "second.log")
    assert study.goes_on(until=lambda: bool(study.scripts()))
    second.begin()
    said = second.fails()
    assert "cannot be locked" in said, said[-3000:]
    assert UNLOCK in said, said[-3000:]
    assert study.ends(), study.said()[-3000:]
    return "the second one stopped at the lock"


def same(clean: Study, study: Study) -> None:
    """The tables and adapters must equal the undisturbed study's."""
    wanted, found = clean.made(), study.made()
    assert wanted.keys() == found.keys(), sorted(wanted.keys() ^ found.keys())
    assert len(wanted) > 10
    different = sorted(name for name, content in wanted.items() if found[name] != content)
    assert not different, different


FAULTS = {function.__name__: function for function in (killed, full, unreadable, truncated, clock, twice)}


def main(arguments: list[str]) -> int:
    """0 if every fault was survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--clean", type=Path, help="a copy of the repository where the smoke study has run")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("faults", nargs="*", help=f"of {', '.join(FAULTS)}; all, if none is named")
    given = parser.parse_args(arguments)
    names = given.faults or list(FAULTS)
    if unknown := [name for name in names if name not in FAULTS]:
        parser.error(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    folder = Path(tempfile.mkdtemp(prefix="es2-faults-"))
    clean = Study(folder / "clean")
    if given.clean is None:
        copy_repository(clean.folder)
        clean.run()
    else:
        adopt(given.clean, clean.folder)
    failed = 0
    for name in names:
        begun, more = time.monotonic(), {"kills": given.kills} if name == "killed" else {}
        study = Study(folder / name)
        shutil.copytree(clean.folder, study.folder, symlinks=True)
        try:
            told = FAULTS[name](clean, study, **more)
            if name != "full":
                same(clean, study)
        except Skipped as why:
            told = f"skipped: {why}"
        except AssertionError as error:
            failed += 1
            told = f"FAILED: {error}"
        print(f"{name}: {told} ({time.monotonic() - begun:.0f} s)", flush=True)
    if not failed:
        shutil.rmtree(folder)
    print(f"test-faults: {len(names)} faults, {failed} failed" + (f"; see {folder}" if failed else ""))
    return 1 if failed else 0


def adopt(source: Path, folder: Path) -> None:
    """Copy the repository and what its finished smoke study left."""
    copy_repository(folder)
    for name in (RESULTS, Path("logs/smoke"), Path("resources"), Path(".snakemake")):
        passing = shutil.ignore_patterns("locks", "scripts", "log", "incomplete")
        shutil.copytree(source / name, folder / name, symlinks=True, ignore=passing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
