"""Mutation test of reruns: edit each module, script, config section and source in turn, and see which jobs run again.

    python -m tests.reruns [folder of a study that this has run before]

The smoke study with its contest and trials runs once in a copy of the repository, and each job leaves a record of the
modules that it had loaded at its end, of the files that it opened, and of its params (tests/trace). Then each thing is
edited, and Snakemake must find every job that used it changed, by itself and not as one that follows another. Jobs that
it finds changed besides are counted: their closure names the module, but what they ran did not import it. After the
study the edits, some two hundred, take about four minutes of one core.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.repository import copy_repository
from es2.fingerprint import AROUND, UNSEEN

CONFIGS = ["config/smoke.yaml", "tests/trace/distinct.yaml"]
TARGETS = ["all", "contest", "trials"]
EDITS: dict[str, Any] = {
    # A value that stands once in the config of the study that was run (tests/trace/distinct.yaml), and another one.
    "splits_seed": 7002,
    "extraction/batch_tokens": 508,
    "probes/bootstrap": 54,
    "reference/answer_tokens": 10,
    "training/learning_rate": 1.6e-4,
    "comparison/factors": [0.5, 1.0, 2.04],
    "report/labels/tiny": "another",
    "models/tiny/licence": "another",
    "prompt_sets/plain/splits/test": 22,
    "runs/es2/training/clip": 1.08,
    "attacks/scav/accuracy": 0.48,
    "bundles/direct/benchmarks/stand_in": 12,
    "generation/batch_rows": 28,
    "ability/batch_rows": 30,
    "merge/tolerance": 0.0124,
}
Records = Mapping[str, dict[str, Any]]


def environment(folder: Path) -> dict[str, str]:
    """The environment in which the es2 of a copy is imported, and its jobs leave records."""
    here = os.pathsep.join([str(folder), str(folder / "tests/trace")])
    return {**os.environ, "PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1", "ES2_TRACE": str(folder / "trace")}


def snakemake(folder: Path, targets: Iterable[str], *arguments: str) -> str:
    """Run Snakemake in a copy; what it says."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--", *targets]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return done.stdout + done.stderr


def run_study(folder: Path) -> None:
    """Run the study in a copy, each job leaving its record."""
    copy_repository(folder, "tests")
    (folder / "trace").mkdir()
    snakemake(folder, TARGETS, "--cores", "all", "--configfile", *CONFIGS)


def read_records(folder: Path) -> Records:
    """{first output: record} of the jobs that the study ran; of one that ran again, the last."""
    files = sorted((folder / "trace").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    records = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return {record["output"][0]: record for record in records}


def wanted(folder: Path, records: Records) -> set[str]:
    """First outputs of the jobs, of those that ran, that a dry run wants for a reason of their own."""
    said = snakemake(folder, records, "-n", "--cores", "1", "--configfile", *CONFIGS)
    found = set()
    for block in re.split(r"\n(?=\[)", said):
        output = re.search(r"^    output: ([^,\n]+)", block, re.MULTILINE)
        reason = re.search(r"^    reason: (.+)", block, re.MULTILINE)
        if output and reason and "updated by another job" not in reason[1]:
            found.add(output[1])
    return found


class Changes:
    """Asks tests/trace/changes.py, in a process of its own, which jobs' params have changed."""

    def __init__(self, folder: Path, records: Records) -> None:
        self._targets = list(records)
        command = [sys.executable, "tests/trace/changes.py"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._asked = subprocess.Popen(command, cwd=folder, env=environment(folder), **pipes)

    def __call__(self, *configs: str) -> set[str]:
        """First outputs of the jobs that have changed, with these configs laid over the study's."""
        question = {"configs": [*CONFIGS, *configs], "targets": self._targets}
        print(json.dumps(question), file=self._asked.stdin, flush=True)
        return set(json.loads(self._asked.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._asked.stdin.close()
        self._asked.wait()


@contextmanager
def edited(path: Path, content: bytes) -> Iterator[None]:
    """A file with another content for a while; its time comes back too, for Snakemake looks at a script's."""
    before, about = path.read_bytes(), path.stat()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def module_of(path: Path, folder: Path) -> str:
    """The dotted name of a module's file."""
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(folder: Path, records: Records) -> Iterator[tuple[str, Path, set[str]]]:
    """What, its file, and the jobs that had it loaded: every module of the package."""
    for path in sorted((folder / "es2").rglob("*.py")):
        name = module_of(path, folder)
        loaded = {job for job, record in records.items() if name in record["modules"]}
        yield name, path, set() if name in UNSEEN | AROUND else loaded


def scripts(folder: Path, records: Records) -> Iterator[tuple[str, Path, set[str]]]:
    """The same of every script."""
    for path in sorted((folder / "workflow/scripts").glob("*.py")):
        yield path.name, path, {job for job, record in records.items() if record["rule"] == path.stem}


def sources(folder: Path, records: Records) -> Iterator[tuple[str, Path, set[str]]]:
    """The same of every file of data that a job opened: those of the package, and the fetched ones."""
    of_package = [path for suffix in ("jsonl", "yaml") for path in (folder / "es2").rglob(f"*.{suffix}")]
    for path in sorted([*of_package, *(folder / "resources/sources").glob("*.json*")]):
        name = str(path.relative_to(folder))
        opened = {job for job, record in records.items() if name in record["opened"] and name not in record["output"]}
        if opened:
            yield name, path, opened


def leaves(value: Any) -> Iterator[Any]:
    """The values of a tree."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    yield from [value] if inner is None else (leaf for one in inner for leaf in leaves(one))


def sections(records: Records) -> Iterator[tuple[str, dict[str, Any], set[str]]]:
    """What, the config that edits it, and the jobs whose params show the value that it had."""
    config = yaml.safe_load(Path(__file__).with_name("trace").joinpath("distinct.yaml").read_text(encoding="utf-8"))
    for place, value in EDITS.items():
        old: Any = config
        laid: Any = value
        for key in place.split("/"):
            old = old[key]
        for key in reversed(place.split("/")):
            laid = {key: laid}
        told = old[-1] if isinstance(old, list) else old
        yield place, laid, {job for job, record in records.items() if told in leaves(record["params"])}


def undeclared(folder: Path, records: Records) -> Iterator[str]:
    """Files that a job opened and that neither it names nor the folder of an input holds; code and what the package
    declares beside it are mutated instead."""
    for job, record in records.items():
        named = {*record["input"], *record["output"], *record["log"]}
        folders = {os.path.dirname(path) for path in [*record["input"], *record["output"]]}
        for path in record["opened"]:
            own = path.endswith((".py", ".pyc")) or path.startswith(("es2/tasks/", ".", "trace/")) or "/." in path
            there = (folder / path).is_file() and "/checkpoints/" not in path
            # Benchmark files are no job's outputs: the table of costs waits for the jobs instead. Records make no job
            # run: they tell whether an input is as it was left, and no result is made of them (es2.makers).
            there = there and "/timings/" not in path and "/provenance/" not in path
            if there and not own and path not in named and os.path.dirname(path) not in folders:
                yield f"{job} opened {path}, which is none of its inputs"


def quiet_edit(text: str) -> str:
    """A module with a comment more and another docstring."""
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree, clean=False)
    return (text.replace(docstring, docstring + " Edited.", 1) if docstring else text) + "\n# a comment\n"


def check_quiet(folder: Path, records: Records) -> list[str]:
    """Comments and docstrings in every module at once rerun nothing."""
    before = {path: path.read_bytes() for path in (folder / "es2").rglob("*.py")}
    for path, content in before.items():
        path.write_text(quiet_edit(content.decode()), encoding="utf-8")
    found = wanted(folder, records)
    for path, content in before.items():
        path.write_bytes(content)
    return [f"comments and docstrings rerun {job}" for job in sorted(found)]


def compare(what: str, expected: set[str], found: set[str]) -> list[str]:
    """Say what an edit reruns; the jobs that used what was edited and do not run again."""
    print(f"{what:45} used by {len(expected):3}, rerun {len(found):3}, {len(found - expected):3} besides", flush=True)
    return [f"{what}: {job} used it and does not run again" for job in sorted(expected - found)]


def mutate(folder: Path, records: Records, changes: Changes) -> list[str]:
    """Every failure of every edit."""
    assert not wanted(folder, records) | changes(), "jobs are to run before anything is edited"
    failures = [*undeclared(folder, records), *check_quiet(folder, records)]
    for name, path, expected in [*modules(folder, records), *scripts(folder, records)]:
        with edited(path, path.read_bytes() + b"\n_MUTATED = 1\n"):
            failures += compare(name, expected, changes())
    for name, path, expected in sources(folder, records):
        with edited(path, path.read_bytes() + b"\n"):
            failures += compare(name, expected, wanted(folder, records))
    for name, laid, expected in sections(records):
        (folder / "edit.yaml").write_text(yaml.safe_dump(laid), encoding="utf-8")
        failures += compare(name, expected, changes("edit.yaml"))
        if not expected:
            failures.append(f"{name}: no job is given it, so that this says nothing")
    return failures


def main(arguments: list[str]) -> int:
    """Run the study unless a folder is given where it has run; 0 if every edit reruns what used it."""
    folder = Path(arguments[0] if arguments else tempfile.mkdtemp(prefix="es2-reruns-"))
    if not (folder / "trace").exists():
        run_study(folder)
    print(f"The study stands in {folder}.", flush=True)
    records = read_records(folder)
    changes = Changes(folder, records)
    failures = mutate(folder, records, changes)
    changes.close()
    print(*failures, f"{len(failures)} failures", sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
