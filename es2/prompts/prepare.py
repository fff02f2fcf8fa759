"""From source files to prompt sets with splits: what the rule `prepare_prompts` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from es2.errors import UserError
from es2.prompts.cleaning import prompt_id
from es2.prompts.leakage import check_leakage
from es2.prompts.readers import COLUMNS, read_prompts
from es2.prompts.rewording import add_reworded
from es2.prompts.splits import split_sets

_SET_COLUMNS = ["prompt_id", "prompt", "set", "label", "split", *COLUMNS[1:], "source", "cluster"]


def prepare_sets(
    sets: Mapping[str, Mapping[str, Any]],
    sources: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, str | Path],
    seed: int,
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, pd.DataFrame]:
    """Read, clean, cluster and split all prompt sets of a study together.

    `sets` and `sources` are the config's rows of prompt_sets and sources, `paths` the fetched file of each
    source. Returns the table of each set (prompt_id, prompt, set, label, split, category, form, target,
    source, cluster), the summary (set, split, n, asked) and the leakage checks.
    """
    read = pd.concat([_read_set(name, row, sources, paths) for name, row in sets.items()], ignore_index=True)
    wanted = {name: _wanted(name, row) for name, row in sets.items()}
    prompts, summary = split_sets(read, wanted, seed)
    prompts = add_reworded(prompts, {name: int(row.get("reworded") or 0) for name, row in sets.items()})
    checks = check_leakage(prompts)
    tables = {name: prompts.loc[prompts["set"] == name, _SET_COLUMNS].reset_index(drop=True) for name in sets}
    return tables, summary, checks


def _wanted(name: str, row: Mapping[str, Any]) -> dict[str, int | str]:
    splits = {split: size for split, size in row["splits"].items() if size is not None}
    if not splits:
        raise UserError(f"prompt_sets.{name}.splits: a prompt set needs at least one split.")
    return splits


def _read_set(
    name: str,
    row: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, str | Path],
) -> pd.DataFrame:
    parts = [pd.DataFrame(columns=[*COLUMNS, "source"])]
    for source in row["sources"]:
        if source not in sources or source not in paths:
            raise UserError(f"prompt_sets.{name}.sources: {source!r} is not a key of sources: add it there.")
        table = read_prompts(Path(paths[source]), sources[source], source).to_pandas()
        parts.append(table.assign(source=source))
    frame = pd.concat(parts[1:] or parts, ignore_index=True)
    return frame.assign(set=name, label=row["label"], prompt_id=[prompt_id(text) for text in frame["prompt"]])
