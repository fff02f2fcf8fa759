"""Verdict tables: reading them, and what all tables made from them share (architecture.md, Tables)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from es2.statistics import RESAMPLES, bootstrap_mean, wilson

Array = npt.NDArray[np.float64]
RUN = ["run", "model", "method", "parent", "seed"]
ATTACK = ["attack", "fitted_on"]
SHARES = ("refusal", "compliance", "degenerate")
TEXT = ("run", "model", "method", "parent", "attack", "fitted_on", "setting", "control", "benchmark", "split",
        "prompt_id", "verdict", "judge")  # fmt: skip
DIRECT = "direct"
POOLED = "pooled"
WORST, WORST_OF_ALL = "worst_case", "worst_case_all"
LISTED = [
    *RUN,
    "benchmark",
    "split",
    "prompt_id",
    "cluster",
    *ATTACK,
    "setting",
    "budget",
    "draw",
    "verdict",
    "judge",
]


def who(row: Mapping[str, Any]) -> dict[str, Any]:
    """run, model, method, parent, seed of a row from the config; the parent of an untrained run is ""."""
    return {name: "" if row[name] is None else row[name] for name in RUN}


@dataclass(frozen=True)
class Settings:
    """What the tables of verdicts need to know of the study.

    harmful: the test sets that are pooled; reference, control: the run whose half-compliance budget on
    validation fixes the budgets of comparison, and the run with separation weight 0; factors: those
    budgets over the reference's; safe: the sets whose refusals are over-refusals; pairs: runs compared
    beyond the default ones; primary: what the one primary endpoint's row of `paired.csv` equals.
    """

    harmful: tuple[str, ...]
    reference: str = "refusal_sft"
    control: str = "hold"
    factors: tuple[float, ...] = (0.5, 1.0, 2.0)
    safe: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    primary: tuple[tuple[str, Any], ...] = ()
    resamples: int = RESAMPLES
    seed: int = 0

    @classmethod
    def from_params(cls, cfg: Mapping[str, Any]) -> "Settings":
        """The settings from the plain dict that a rule passes as `params.cfg`; unknown keys are ignored."""
        known = {key: value for key, value in cfg.items() if key in cls.__dataclass_fields__}
        for key in ("harmful", "factors", "safe"):
            if key in known:
                known[key] = tuple(known[key])
        known["pairs"] = tuple((a, b) for a, b in known.get("pairs", ()))
        known["primary"] = tuple(sorted(dict(known.get("primary", {})).items()))
        return cls(**known)


def read_verdicts(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The verdicts of all files in one frame, text columns as text ("" where empty), in a fixed order.

    A control's attack bears its name (`scav_random`); `refusal`, `compliance`, `degenerate` hold 1, 0, or
    NaN where the verdict is missing.
    """
    types = dict.fromkeys(TEXT, str)
    empty = {"budget": [""], "realised": [""]}
    frames = [pd.read_csv(p, dtype=types, keep_default_na=False, na_values=empty) for p in paths]
    return prepared(pd.concat(frames, ignore_index=True))


def prepared(verdicts: pd.DataFrame) -> pd.DataFrame:
    """A raw verdict frame (columns of the contract) with controls in the attack names, and the indicators.

    An answer that two bundles gave alike counts once.
    """
    frame = verdicts.copy()
    for column in TEXT:
        frame[column] = frame[column].fillna("").astype(str)
    named = frame["attack"] + "_" + frame["control"]
    frame["attack"] = frame["attack"].where(frame["control"] == "", named)
    frame["budget"] = pd.to_numeric(frame["budget"])
    frame["realised"] = pd.to_numeric(frame["realised"])
    judged = frame["verdict"].isin(SHARES)
    for share in SHARES:
        frame[share] = (frame["verdict"] == share).astype(float).where(judged)
    keys = [*RUN, *ATTACK, "setting", "budget", "benchmark", "split", "judge", "prompt_id", "draw"]
    return frame.drop_duplicates(keys).sort_values(keys, kind="stable", ignore_index=True)


def listed(verdicts: pd.DataFrame) -> pd.DataFrame:
    """`verdicts.csv`: who, which prompt (by hash), which attack, which verdict; no text."""
    return verdicts[LISTED]


def with_pool(cells: pd.DataFrame, harmful: tuple[str, ...]) -> pd.DataFrame:
    """The test verdicts, and once more those of the harmful sets under the benchmark `pooled`."""
    test = cells[cells["split"] == "test"]
    pool = test[test["benchmark"].isin(harmful)]
    return pd.concat([test, pool.assign(benchmark=POOLED)], ignore_index=True)


def aimed_at(cells: pd.DataFrame, harmful: tuple[str, ...]) -> pd.DataFrame:
    """The verdicts that say who wins: all of the direct request; of an attack those on harmful prompts, for what it
    does to harmless ones is a side effect."""
    return cells[(cells["attack"] == DIRECT) | cells["benchmark"].isin([*harmful, POOLED])]


def rate_interval(cells: pd.DataFrame, values: Array, settings: Settings) -> tuple[float, float, float]:
    """Mean of `values` [n] (one a row of `cells`, NaN where missing) and its 95 % interval.

    Wilson's interval over prompts. Where near-twins remain, or a prompt counts several times (the draws
    of a control), the ends lie at least as far out as those of a bootstrap over clusters, which alone
    would have no width at 0 and 1.
    """
    there = np.isfinite(values)
    kept = cells[there]
    n = kept["prompt_id"].nunique()
    if n == 0:
        return np.nan, np.nan, np.nan
    share = float(values[there].mean())
    interval = wilson(round(share * n), n)
    if kept["cluster"].nunique() == len(kept):
        return share, interval.low, interval.high
    drawn = bootstrap_mean(values, cells["cluster"].tolist(), settings.resamples, settings.seed)
    return share, min(interval.low, drawn.low), max(interval.high, drawn.high)
