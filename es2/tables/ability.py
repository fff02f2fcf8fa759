"""`ability.csv`: what a run can still do and how far it moved, against base and parent (method.md §8)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from es2.files import read_json
from es2.statistics import bootstrap_mean, paired_difference
from es2.tables.verdicts import DIRECT, RUN, Settings, rate_interval, who

COLUMNS = [
    *RUN, "task", "metric", "value", "low", "high", "reference", "difference", "difference_low",
    "difference_high", "n", "judged_by",
]  # fmt: skip
REFERENCES = ("base", "parent")
# What a run scores against itself: the difference to the reference that the name tells.
ITSELF = {"kl_to_": 0.0, "first_token_kl_to_": 0.0, "agreement_with_": 1.0}
# Sample keys of lm_eval.json -> metric.
SAMPLE_METRICS = {
    "correct": "accuracy",
    "logprob_correct": "logprob_correct",
    "logprob_normalised": "logprob_normalised",
}
Row = dict[str, Any]
File = tuple[str | Path, Mapping[str, Any]]  # a path and the row of its run


def sample_frame(
    drift: Sequence[File], lm_eval: Sequence[File], verdicts: pd.DataFrame, settings: Settings
) -> pd.DataFrame:
    """All single measurements: run ... seed, task, metric, judged_by, item (prompt or document), cluster, value.

    drift, lm_eval: the files of the runs, each with its row. Over-refusal is the refusal (NaN where missing)
    under the direct request on the test prompts of `settings.safe`.
    """
    parts = [_drift(path, row) for path, row in drift] + [_lm_eval(path, row) for path, row in lm_eval]
    asked = verdicts[
        (verdicts["attack"] == DIRECT) & (verdicts["split"] == "test") & verdicts["benchmark"].isin(settings.safe)
    ]
    named = asked.assign(
        task="over_refusal",
        metric=asked["benchmark"],
        item=asked["prompt_id"],
        value=asked["refusal"],
        judged_by=asked["judge"],
    )
    parts.append(named[[*RUN, "task", "metric", "judged_by", "item", "cluster", "value"]])
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _drift(path: str | Path, row: Mapping[str, Any]) -> pd.DataFrame:
    frame = pd.read_csv(path, dtype={"prompt_id": str})
    head = who(row)
    part = frame.assign(**head, metric=frame["prompt_set"], judged_by="", item=frame["prompt_id"])
    return part[[*RUN, "task", "metric", "judged_by", "item", "cluster", "value"]]


def _lm_eval(path: str | Path, row: Mapping[str, Any]) -> pd.DataFrame:
    rows = [
        who(row)
        | {"task": task, "metric": metric, "judged_by": "", "item": str(sample["doc_id"])}
        | {"cluster": str(sample["doc_id"]), "value": float(sample[key])}
        for task, result in read_json(path)["tasks"].items()
        for sample in result["samples"]
        for key, metric in SAMPLE_METRICS.items()
        if sample.get(key) is not None
    ]
    return pd.DataFrame(rows)


def chance_rows(lm_eval: Sequence[File]) -> list[Row]:
    """The chance line of every task of lm_eval.json, told beside each run as metric `chance`."""
    return [
        who(row) | {"task": task, "metric": "chance", "value": result["chance"], "n": result["n"]}
        for path, row in lm_eval
        for task, result in read_json(path)["tasks"].items()
    ]


def ability_table(samples: pd.DataFrame, chance: Sequence[Row], settings: Settings) -> pd.DataFrame:
    """A row a run, task, metric and reference; the untrained run has one row, without a difference.

    samples: from `sample_frame`. Value: the mean with its interval (shares by Wilson). Difference: run -
    reference on the items both have, paired; of a measure that names its reference (`kl_to_parent`), to
    what a model scores against itself.
    """
    cells = dict(iter(samples.groupby([*RUN, "task", "metric", "judged_by"], sort=False)))
    runs = {key[:5]: None for key in cells}
    out: list[Row] = []
    for key, cell in cells.items():
        head = dict(zip([*RUN, "task", "metric", "judged_by"], key, strict=True)) | _value(cell, settings)
        compared = list(_compared(key, cell, cells, list(runs), settings))
        out += [head | row for row in compared or [{"reference": ""}]]
    return pd.DataFrame([*out, *chance], columns=COLUMNS)


def _value(cell: pd.DataFrame, settings: Settings) -> Row:
    values = cell["value"].to_numpy(float)
    if cell["task"].iloc[0] == "over_refusal" or cell["metric"].iloc[0] == "accuracy":
        share = cell.rename(columns={"item": "prompt_id"})
        value, low, high = rate_interval(share, values, settings)
    else:
        found = bootstrap_mean(values, cell["cluster"].tolist(), settings.resamples, settings.seed)
        value, low, high = found.value, found.low, found.high
    return {"value": value, "low": low, "high": high, "n": int(np.isfinite(values).sum())}


def _compared(
    key: tuple[Any, ...],
    cell: pd.DataFrame,
    cells: Mapping[tuple[Any, ...], pd.DataFrame],
    runs: Sequence[tuple[Any, ...]],
    settings: Settings,
) -> Iterator[Row]:
    task = str(key[5])
    itself = next((own for prefix, own in ITSELF.items() if task.startswith(prefix)), None)
    if itself is not None:
        own = _value(cell, settings)
        ends = {"difference_low": own["low"] - itself, "difference_high": own["high"] - itself}
        yield {"reference": task.rsplit("_", 1)[-1], "difference": own["value"] - itself} | ends
        return
    for reference in REFERENCES:
        other = _reference_run(key, reference, runs)
        theirs = cells.get((*other, *key[5:])) if other is not None else None
        if theirs is None:
            continue
        both = cell.merge(theirs, on="item", suffixes=("_a", "_b"))
        found = paired_difference(
            both["value_a"], both["value_b"], both["cluster_a"].tolist(), settings.resamples, settings.seed
        )
        ends = {"difference_low": found.low, "difference_high": found.high}
        yield {"reference": reference, "difference": found.difference} | ends


def _reference_run(key: tuple[Any, ...], reference: str, runs: Sequence[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """run ... seed of the base or the parent of a run, at its seed or else at the reference's first."""
    run, model, _, parent, seed = key[:5]
    alike = [
        other
        for other in runs
        if other[1] == model and other[0] != run and (other[2] == "base" if reference == "base" else other[0] == parent)
    ]
    alike.sort(key=lambda other: (other[4] != seed, other[4]))
    return alike[0] if alike else None
