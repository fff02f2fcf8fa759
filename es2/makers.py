"""Which job made a file, by the records of the jobs (es2.records), and whether the file is still as that job left it.

Torch-free.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from es2.errors import UserError
from es2.files import read_json

Record = Mapping[str, Any]
_KEYS = {"rule", "wildcards", "inputs", "outputs", "beside", "finished"}


def read_makers(folders: Iterable[Path]) -> dict[str, Record]:
    """{path: record of the job that made it}, from the records in these folders; of several the newest.

    A record may go while the others are read: a job that is run again takes its own away first. It counts as gone.
    Raises UserError for a record that cannot be read.
    """
    makers: dict[str, Record] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.json")):
            try:
                record = _read(file)
            except FileNotFoundError:
                continue
            for path in written(record):
                if path not in makers or record["finished"] > makers[path]["finished"]:
                    makers[path] = record
    return makers


def written(record: Record) -> dict[str, Any]:
    """All files that a job left: its outputs, and what it wrote beside them."""
    return {**record["outputs"], **record["beside"]}


def name(record: Record) -> str:
    """A job in words: its rule with its wildcards."""
    values = ", ".join(f"{key} {value}" for key, value in record["wildcards"].items() if value)
    return f"{record['rule']} ({values})" if values else str(record["rule"])


def check_unchanged(files: Mapping[str, Any], makers: Mapping[str, Record]) -> None:
    """Raise UserError if files ({path: SHA-256 and size}) are not as their jobs left them.

    A file without a record passes: nobody says how it should be.
    """
    recorded = {path: makers[path] for path in files if path in makers}
    changed = {path: maker for path, maker in recorded.items() if written(maker)[path] != files[path]}
    if changed:
        jobs = ", ".join(sorted({name(record) for record in changed.values()}))
        raise UserError(
            f"{', '.join(changed)}: not as {jobs} left it, so it was damaged or edited since; "
            "delete it and run the same command again"
        )


def _read(file: Path) -> Record:
    try:
        record = read_json(file)
        missing = _KEYS - set(record)
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: this record cannot be read ({error}); delete it, and run its job again") from error
    if missing:
        raise UserError(f"{file}: this record lacks {min(missing)}; delete it, and run its job again")
    return record
