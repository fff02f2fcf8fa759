"""`attack_cost.csv`: what each attack on each run took, the attacker's search included (method.md section 6)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from es2.files import read_jsonl
from es2.tables.listing import once, read_benchmark
from es2.tables.verdicts import RUN, who

COLUMNS = [
    *RUN,
    "attack",
    "fitted_on",
    "searched",
    "gradients",
    "answers",
    "generated",
    "seconds",
    "cpu_seconds",
    "peak_mb",
]


def attack_cost_table(
    rows: Sequence[Mapping[str, Any]],
    answers: Sequence[str | Path],
    searches: Sequence[str | Path],
    timings: Sequence[str | Path],
    gradients: Mapping[str, int],
) -> pd.DataFrame:
    """A row an evaluation job, all sequences in the order of `rows` (run ... seed, attack, and what it is fitted_on).

    searches: the attacker's trials on validation (csv; of an attack without a search it has no rows); answers: what the
    job wrote (jsonl); timings: Snakemake's benchmark file of the job, empty columns where it is gone; gradients: of an
    attack, the sequences that its own training takes gradients on. `searched`: answers to validation prompts before the
    choice; `answers`: to the benchmarks, controls included, with `generated` tokens; seconds by the clock and of all
    cores; peak memory in MB.
    """
    out = []
    for row, wrote, tried, timing in zip(rows, answers, searches, timings, strict=True):
        written = once(read_jsonl(wrote))
        out.append(
            {**who(row), "attack": row["attack"], "fitted_on": ", ".join(row["fitted_on"])}
            | {"searched": _searched(tried)}
            | {"gradients": gradients.get(row["attack"], 0), "answers": len(written)}
            | {"generated": sum(one["n_tokens"] for one in written)}
            | (read_benchmark(timing) if Path(timing).is_file() else {})
        )
    return pd.DataFrame(out, columns=COLUMNS)


def _searched(path: str | Path) -> int:
    trials = pd.read_csv(path)
    return int(trials["n"].sum()) if "n" in trials else 0
