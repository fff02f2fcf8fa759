"""`python -m es2.provenance FILE ...`: what made a file, back to the sources, with every hash on the way checked.

A folder (`results/default`) checks everything that its files were made from. `--settings` adds each job's settings and
versions. To be run in the working directory of the study. The exit status is 1 where a file differs from the records
or a record is lacking; a file that was deleted since is told, and no error, except where it was asked for. Records are
not signed: they show what was changed by mistake, not by somebody who changes them too. Torch-free.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from es2.errors import UserError
from es2.files import sha256_file
from es2.makers import Record, name, read_makers, written
from es2.records import FOLDER, MADE, relative

OK, SOURCE, CHANGED, MISSING, UNRECORDED = "ok", "ok, a source", "CHANGED", "missing", "no record"
_APART = {FOLDER, "timings"}
_USAGE = "provenance: say `python -m es2.provenance FILE ...`, files or a folder of the study (and --settings)"
_FEW = 12  # settings that are shown without being asked for


@dataclass
class Artefact:
    """A file of the chain: the job that made it, if one did, and who read it, with the hash that was read."""

    path: str
    maker: Record | None
    depth: int
    readers: set[tuple[str, str]] = field(default_factory=set)
    below: list["Artefact"] = field(default_factory=list)


@dataclass(frozen=True)
class Checked:
    """What became of a file: one of the states, and a sentence for each contradiction."""

    state: str
    sentences: tuple[str, ...] = ()


def shelves() -> list[Path]:
    """The folders of all records below the working directory."""
    return [*Path("results").glob(f"*/{FOLDER}"), Path("resources", FOLDER)]


def chain(paths: Iterable[str], makers: Mapping[str, Record]) -> list[Artefact]:
    """The artefacts of `paths`, and below them the files that they were made from, each once, where it is nearest."""
    found = {path: Artefact(path, makers.get(path), 0) for path in paths}
    roots = list(found.values())
    waiting = list(roots)
    for artefact in waiting:  # grows while it is gone through: nearest first
        if artefact.maker is None:
            continue
        read = {path: entry["sha256"] for path, entry in artefact.maker["inputs"].items()}
        for path in (*artefact.maker["beside"], *read):
            if path not in found:
                found[path] = Artefact(path, makers.get(path), artefact.depth + 1)
                artefact.below.append(found[path])
                waiting.append(found[path])
            if path in read:
                found[path].readers.add((name(artefact.maker), read[path]))
    return roots


def everything(artefacts: Iterable[Artefact]) -> Iterator[Artefact]:
    """These artefacts and all below them, each before what is below it."""
    for artefact in artefacts:
        yield artefact
        yield from everything(artefact.below)


def check(artefact: Artefact) -> Checked:
    """Compare a file on disk with what its maker left and with what its readers read."""
    path, maker = artefact.path, artefact.maker
    there = sha256_file(path) if Path(path).is_file() else None
    left = None if maker is None else written(maker)[path]["sha256"]
    said = []
    if maker is not None and there not in (None, left):
        said.append(f"{path} is not as {name(maker)} left it")
    other = left or there
    for reader, read in sorted(artefact.readers):
        if other not in (None, read):
            said.append(f"{path} is not as {reader} read it")
    if said:
        return Checked(CHANGED, tuple(said))
    if left is None and Path(path).parts[0] in MADE:
        return Checked(UNRECORDED, (f"{path} has no record of what made it",))
    if there is None:
        return Checked(MISSING)
    return Checked(OK if left else SOURCE)


def settings(record: Record) -> Iterator[str]:
    """A job's settings as `key=value`, nested keys joined by points."""
    yield from _flat(record.get("params", {}), "")


def _flat(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flat(entry, f"{prefix}.{key}" if prefix else key)
    else:
        yield f"{prefix}={value}"


def told(artefact: Artefact, checked: Checked, full: bool, first: bool) -> Iterator[str]:
    """The lines that show an artefact, indented by its distance from what was asked; of its job more the first time."""
    space, record = "  " * artefact.depth, artefact.maker
    line = f"{space}{artefact.path}: {checked.state}"
    if record is None or not first:
        yield line if record is None else f"{line} <- {name(record)}"
        return
    seed = "" if record.get("seed") is None else f"seed {record['seed']}, "
    yield f"{line} <- {name(record)}, code {str(record.get('code'))[:12]}, {seed}{record['finished']}"
    values = list(settings(record))
    if full:
        versions = [f"{package} {version}" for package, version in record.get("versions", {}).items() if version]
        yield f"{space}    {', '.join(versions)}; commit {record.get('commit')}; {record.get('machine')}"
        yield from (f"{space}    {value}" for value in values)
    elif values and len(values) <= _FEW:
        yield f"{space}    {', '.join(values)}"


def closing(states: Mapping[str, list[str]], jobs: int, loose: Sequence[str]) -> str:
    """The last line: what was checked, every changed file by name, and how many are missing or without a record."""
    bad = [f"{CHANGED}: {', '.join(states[CHANGED])}"] if states[CHANGED] else []
    bad += [some(state, states[state]) for state in (UNRECORDED, MISSING) if states[state]]
    bad += [some("beside them without a record", loose)] if loose else []
    unchanged = "" if states[CHANGED] or states[UNRECORDED] else "all as recorded"
    return f"{sum(map(len, states.values()))} files, {jobs} jobs: " + "; ".join([*filter(None, [unchanged]), *bad])


def some(what: str, paths: Sequence[str]) -> str:
    """How many files are so, with one of them."""
    return f"{len(paths)} {what} (such as {paths[0]})"


def without_record(folder: str, makers: Mapping[str, Record]) -> list[str]:
    """Files in a folder that no record knows, but for the records themselves and Snakemake's benchmark files."""
    files = sorted(relative(path) for path in Path(folder).rglob("*") if path.is_file())
    return [file for file in files if file not in makers and not _APART & set(Path(file).parts)]


def targets(arguments: Iterable[str], makers: Mapping[str, Record]) -> list[str]:
    """The recorded files that the arguments mean. Raises UserError for one that no record knows."""
    found: list[str] = []
    for argument in arguments:
        path = relative(argument)
        if not Path(path).is_dir():
            if path not in makers:
                raise UserError(_unknown(path))
            found.append(path)
            continue
        inside = [made for made in makers if path == "." or Path(made).is_relative_to(path)]
        if not inside:
            raise UserError(f"{path}: no record of a file in this folder; give a folder of a study, as results/default")
        found += sorted(inside)
    return list(dict.fromkeys(found))


def _unknown(path: str) -> str:
    if not Path(path).exists():
        return f"{path}: there is no such file, and no record of one; run this where results/ is"
    return f"{path}: no record says what made this file; no job of a study did, or one before records were kept"


def main(arguments: Sequence[str]) -> int:
    """Print the chain of files, or check a folder; the exit status. See the module."""
    given = [argument for argument in arguments if argument != "--settings"]
    if not given or any(argument.startswith("-") for argument in given):
        raise UserError(_USAGE)
    makers = read_makers(shelves())
    asked, folders = targets(given, makers), [argument for argument in given if Path(argument).is_dir()]
    states: dict[str, list[str]] = {state: [] for state in (OK, SOURCE, CHANGED, UNRECORDED, MISSING)}
    sentences: list[str] = []
    jobs: set[int] = set()
    for artefact in everything(chain(asked, makers)):
        checked = check(artefact)
        states[checked.state].append(artefact.path)
        sentences += checked.sentences
        if not folders:
            print(*told(artefact, checked, "--settings" in arguments, id(artefact.maker) not in jobs), sep="\n")
        jobs |= set() if artefact.maker is None else {id(artefact.maker)}
    loose = [file for folder in folders for file in without_record(folder, makers)]
    print(*sentences, closing(states, len(jobs), loose), sep="\n")
    lost = not folders and set(states[MISSING]) & set(asked)
    return 1 if states[CHANGED] or states[UNRECORDED] or lost else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(str(error))
    except BrokenPipeError:  # of `... | head`: nothing more to say to it, at the interpreter's end neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
