"""Tables of prompts in any of five formats, read to one shape: a `datasets.Dataset` in memory."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets import Dataset

from es2.errors import UserError
from es2.files import atomic_write
from es2.prompts.cleaning import form_of

COLUMNS = ("prompt", "category", "form", "target")
_CONTEXT = "context"  # a column of files only: in a table it is part of the prompt
_BETWEEN = "\n\n---\n\n"  # what HarmBench's own code writes between a context and the behaviour asked for
_SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_SUFFIXES |= {".yaml": "yaml", ".yml": "yaml"}
_Rows = list[dict[str, Any]]


def read_prompts(path: Path, row: Mapping[str, Any], name: str) -> Dataset:
    """Read the source `name` from the file at `path`.

    `row` is its config row: format (else told by the suffix), records (the key of the list in a JSON or YAML
    file), where (the value that a row to be taken has in each column named), prompt_column (default `prompt`; a
    list of one text, as chats are stored, is that text), context_column (a text that stands before the prompt),
    category_column, form_column, target_column. Returns the columns prompt, category (a list is joined by "; "),
    form (told from the text where no column names it) and target, all strings. Raises UserError for a file that
    cannot be read as that format, a missing column, no row that is taken, and no or an empty prompt.
    """
    rows = _read_rows(Path(path), _format(Path(path), row, name), row.get("records"), name)
    if not rows:
        raise UserError(f"sources.{name}: {Path(path).name} holds no rows: give a file with prompts in it.")
    rows = _taken(rows, row.get("where") or {}, name)
    columns = _columns(rows, row, name)
    return Dataset.from_list([_prompt_row(record, columns) for record in rows])


def save_prompts(prompts: pd.DataFrame, path: str | Path) -> None:
    """Write a prompt set as Parquet, atomically; equal tables give equal bytes."""
    with atomic_write(path) as temporary:
        pq.write_table(pa.Table.from_pandas(prompts, preserve_index=False), temporary)


def _format(path: Path, row: Mapping[str, Any], name: str) -> str:
    known = sorted(set(_SUFFIXES.values()))
    given = row.get("format")
    if given is not None and given not in known:
        raise UserError(f"sources.{name}.format: {given!r} is none of {', '.join(known)}.")
    if given is not None:
        return str(given)
    for candidate in (row.get("member"), row.get("file"), row.get("path"), path):
        if found := _SUFFIXES.get(Path(str(candidate or "")).suffix.lower()):
            return found
    raise UserError(f"sources.{name}: {path.name} does not tell its format: set `format` ({', '.join(known)}).")


def _read_rows(path: Path, form: str, records: str | None, name: str) -> _Rows:
    try:
        rows = _READERS[form](path)
    except (OSError, ValueError, yaml.YAMLError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"sources.{name}: {path.name} cannot be read as {form}: {reason}") from error
    if records is not None:
        if not isinstance(rows, dict) or records not in rows:
            held = ", ".join(rows) if isinstance(rows, dict) else "a list without keys"
            raise UserError(f"sources.{name}.records: {path.name} has no key {records!r}; it has {held}.")
        rows = rows[records]
    if not isinstance(rows, list) or not all(isinstance(record, dict) for record in rows):
        raise UserError(
            f"sources.{name}: {path.name} is not a list of rows with named columns: "
            "if the list stands under a key, name it in `records`."
        )
    return rows


def _read_csv(path: Path) -> Any:
    # Every cell is text: "None" and "NA" are answers that a prompt set may hold.
    return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def _read_jsonl(path: Path) -> Any:
    return [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def _read_parquet(path: Path) -> Any:
    return pq.read_table(path).to_pylist()


def _read_yaml(path: Path) -> Any:
    # The C loader is the same safe loader, ten times faster; not every build of the library has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=loader)


_READERS: dict[str, Callable[[Path], Any]] = {
    "csv": _read_csv,
    "json": _read_json,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "yaml": _read_yaml,
}


def _taken(rows: _Rows, where: Mapping[str, str], name: str) -> _Rows:
    """Return the rows that have all values of `where`, each compared as text."""
    for column, value in where.items():
        _need_column(rows, column, f"sources.{name}.where")
        found = list(dict.fromkeys(_text(record.get(column)) for record in rows))
        rows = [record for record in rows if _text(record.get(column)) == value]
        if not rows:
            held = ", ".join(repr(text[:30]) for text in found[:5]) + (", ..." if len(found) > 5 else "")
            raise UserError(f"sources.{name}.where.{column}: no row is left with {value!r}; the column has {held}.")
    return rows


def _need_column(rows: _Rows, column: str, key: str) -> None:
    present = list(dict.fromkeys(key for record in rows for key in record))
    if column not in present:
        has = ", ".join(map(str, present)) or "none"
        raise UserError(f"{key}: there is no column {column!r}; the file has {has}.")


def _columns(rows: _Rows, row: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return the file's column for each of ours that the config names; check them and the prompts in them."""
    named = {column: row.get(f"{column}_column") for column in (*COLUMNS, _CONTEXT)}
    columns = {ours: str(theirs) for ours, theirs in named.items() if theirs}
    columns.setdefault("prompt", "prompt")
    for ours, theirs in columns.items():
        _need_column(rows, theirs, f"sources.{name}.{ours}_column")
    wrong = [place for place, record in enumerate(rows, 1) if not _is_prompt(record.get(columns["prompt"]))]
    if wrong:
        rows_read = "rows that `where` takes" if row.get("where") else "rows"
        raise UserError(
            f"sources.{name}: {len(wrong)} of {len(rows)} {rows_read} have no text in column {columns['prompt']!r}, "
            f"the first is row {wrong[0]}: mend or remove them, or name another prompt_column."
        )
    return columns


def _is_prompt(value: Any) -> bool:
    """Whether a cell holds one text: several turns of a chat are no single prompt."""
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    return isinstance(only, str) and bool(only.strip())


def _prompt_row(record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    values = {ours: _text(record.get(theirs)) for ours, theirs in columns.items()}
    context = values.get(_CONTEXT, "")
    prompt = (context + _BETWEEN + values["prompt"] if context.strip() else values["prompt"]).strip()
    return {
        "prompt": prompt,
        "category": values.get("category", ""),
        "form": values.get("form") or form_of(prompt),
        "target": values.get("target", ""),
    }


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(str(item) for item in value)
    return "" if value is None else str(value)
