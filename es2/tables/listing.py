"""Tables that list: many runs' csv files as one, the settings of a study, and what each job cost."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from es2.errors import UserError
from es2.files import read_json, read_jsonl
from es2.names import SINGLE
from es2.tables.verdicts import RUN, who

SETTING_COLUMNS = [*RUN, "attack", "key", "value"]
COST_COLUMNS = [
    "run",
    "model",
    "method",
    "parent",
    "seed",
    "rule",
    "job",
    "seconds",
    "peak_mb",
    "tokens",
    "generated",
]


def stacked(paths: Sequence[str | Path], rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The tables of several runs one below the other, each with its run, model, method, parent, seed in front.

    rows: who each file is of, in the order of `paths`.
    """
    parts = []
    for path, row in zip(paths, rows, strict=True):
        frame = pd.read_csv(path)
        body = frame[[column for column in frame if column not in RUN]]
        head = pd.DataFrame({name: [value] * len(frame) for name, value in who(row).items()}, index=frame.index)
        parts.append(pd.concat([head, body], axis=1))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=RUN)


def settings_table(items: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """`settings.csv`: one row a value, nested keys joined by dots.

    items: mappings with any of run, model, method, parent, seed, attack (empty where a setting belongs to
    none) and `values`, a mapping. Lists stand as JSON, texts as they are; nothing is looked up.
    """
    rows = [
        {name: item.get(name, "") for name in (*RUN, "attack")} | {"key": key, "value": value}
        for item in items
        for key, value in _flat(item["values"], "")
    ]
    return pd.DataFrame(rows, columns=SETTING_COLUMNS)


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value if isinstance(value, str) else json.dumps(value, default=str)


def chosen_settings(search: pd.DataFrame) -> dict[str, str]:
    """What the adaptive attacker chose on validation: `chosen at budget <b>` (`chosen` without one) -> its name."""
    chosen = search[search["chosen"].astype(str).str.lower().isin(("true", "1"))].sort_values("budget")
    keys = ["chosen" if pd.isna(budget) else f"chosen at budget {budget:g}" for budget in chosen["budget"]]
    return dict(zip(keys, map(str, chosen["setting"]), strict=True))


def document_settings(path: str | Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The item of a JSON file: `row` says whose it is, under which `prefix`, and which `keys` (all where none)."""
    values = read_json(path)
    keys = row.get("keys") or list(values)
    told = {key: values[key] for key in keys if key in values}
    return {**row, "values": {row["prefix"]: told} if row.get("prefix") else told}


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed version of each package, "" where it is not installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def generated_tokens(paths: Sequence[str | Path], jobs: Sequence[str]) -> dict[str, dict[str, int]]:
    """Tokens that each job generated, from its answers: job (`{rule}/.../{job}`) -> {"generated": n}."""
    return {
        job: {"generated": sum(row["n_tokens"] for row in once(read_jsonl(path)))}
        for path, job in zip(paths, jobs, strict=True)
    }


def once(answers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A job's answer rows, each answer once: where several were drawn (`SINGLE`), the one kept is told again."""
    drawn = [row for row in answers if row["control"] == SINGLE]
    return drawn or list(answers)


def read_benchmark(path: str | Path) -> dict[str, float]:
    """What Snakemake measured of a job (columns s, max_rss in MB, cpu_time): seconds by the clock, `cpu_seconds` of all
    cores, `peak_mb`; not a number where it measured none."""
    table = pd.read_csv(path, sep="\t", na_values=["-", "NA"])
    return {
        "seconds": float(table["s"].mean()),
        "cpu_seconds": float(table["cpu_time"].mean()),
        "peak_mb": float(pd.to_numeric(table["max_rss"]).max()),
    }


def cost_table(folder: str | Path, rows: Iterable[Mapping[str, Any]], tokens: Mapping[str, Any]) -> pd.DataFrame:
    """`cost.csv`: seconds and peak memory of every job that left a benchmark file under `folder`.

    A file is `{rule}/.../{job}.tsv` as Snakemake writes it (columns s, max_rss in MB); a part of its path
    between that equals a model, a run, or s<seed> of `rows` says whose it was. tokens: `{rule}/.../{job}`
    -> a dict with `tokens` (read) and `generated`; both are empty where nothing is told. A job that is run at the same
    time has no row yet.
    """
    root, known = Path(folder), list(rows)
    if not root.is_dir():
        raise UserError(f"{root}: no timings here; run the study first.")
    out = []
    for path in sorted(root.rglob("*.tsv")):
        parts = path.relative_to(root).with_suffix("").parts
        told = tokens.get("/".join(parts), {})
        try:
            measured = read_benchmark(path)
        except (FileNotFoundError, pd.errors.EmptyDataError):
            continue  # its job runs at this moment: Snakemake writes the file when it ends
        out.append(
            _whose(parts, known)
            | {"rule": parts[0], "job": "/".join(parts[1:])}
            | {name: measured[name] for name in ("seconds", "peak_mb")}
            | {"tokens": told.get("tokens"), "generated": told.get("generated")}
        )
    return pd.DataFrame(out, columns=COST_COLUMNS)


def _whose(parts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The run that a job's path names; only the model where it names no run, nothing where it names none."""
    named = set(parts)
    for row in rows:
        if {str(row["model"]), str(row["run"])} <= named and f"s{row['seed']}" in named:
            return who(row)
    model = next((row["model"] for row in rows if str(row["model"]) in named), "")
    return dict.fromkeys(RUN, "") | {"model": model}
