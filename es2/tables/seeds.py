"""`seeds.csv`: differences between runs over several trainings, drawn like the prompts (method.md section 7)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from es2.compared import compared_with
from es2.seeded import seeded_difference, seeded_half_budget_ratio
from es2.tables.curves import Budgets, Curve, adaptive_curves
from es2.tables.paired import MEASURES, adjusted, comparisons
from es2.tables.robustness import partner
from es2.tables.verdicts import RUN, Settings, aimed_at, with_pool

WHO = [*RUN[:-1], "run_a", "run_b", "attack", "fitted_on", "benchmark", "judge", "budget", "factor"]
COLUMNS = [*WHO, "measure", "value", "low", "high", "p", "p_adjusted", "n", "n_seeds", "primary"]
LEAST_RESAMPLES = 10_000  # where a p value is that of few, es2.seeded draws more
Row = dict[str, Any]


def seeds_table(verdicts: pd.DataFrame, budgets: Budgets, settings: Settings) -> pd.DataFrame:
    """The rows of `paired.csv` pooled over the seeds of run_a, where these are two or more, and the ratios of
    half-compliance budgets of the curves' means over them; on the prompts that every seed met. run_b counts at the same
    seed or, where it has none (an untrained run exists once), at its first.

    Arguments as in es2.tables.paired. `value` is a difference (run_a - run_b), or for `half_compliance_ratio` a ratio,
    which has no p value. All but the primary endpoint are Holm-adjusted together.
    """
    pairs: dict[tuple[Any, ...], list[pd.DataFrame]] = {}
    for head, both in comparisons(verdicts, budgets, settings):
        # One object for what is missing, so that keys which lack a budget are equal.
        pairs.setdefault(tuple(head.get(name, np.nan) for name in WHO), []).append(both.set_index("prompt_id"))
    rows = [
        dict(zip(WHO, key, strict=True)) | _difference(frames, measure, settings)
        for key, frames in pairs.items()
        if len(frames) > 1
        for measure in MEASURES
    ]
    cells = aimed_at(with_pool(verdicts, settings.harmful), settings.harmful)
    rows += _ratios(adaptive_curves(cells), settings)
    return adjusted(pd.DataFrame(rows, columns=COLUMNS), settings)[COLUMNS]


def _difference(frames: Sequence[pd.DataFrame], measure: str, settings: Settings) -> Row:
    ids = _common(frame.index for frame in frames)
    table = np.stack([(frame[f"{measure}_a"] - frame[f"{measure}_b"]).loc[ids].to_numpy(float) for frame in frames])
    clusters = frames[0].loc[ids, "cluster"].tolist()
    found = seeded_difference(table, clusters, max(settings.resamples, LEAST_RESAMPLES), settings.seed)
    told = {"value": found.difference, "low": found.low, "high": found.high, "p": found.p, "n": found.n}
    return {"measure": measure, "n_seeds": len(frames)} | told


def _ratios(curves: Sequence[Curve], settings: Settings) -> Iterator[Row]:
    parents = {curve.run: str(curve.group[RUN.index("parent")]) for curve in curves}
    by_run: dict[tuple[Any, ...], list[Curve]] = {}
    for curve in curves:
        by_run.setdefault((curve.run, curve.where), []).append(curve)
    for (run, _), own in by_run.items():
        for other in compared_with(run, parents, settings.control, settings.pairs):
            found = [(curve, against) for curve in own if (against := partner(curve, curves, other)) is not None]
            if len(found) > 1:
                yield _head(own[0], other) | _ratio([a for a, _ in found], [b for _, b in found], settings)


def _head(curve: Curve, other: str) -> Row:
    about: Mapping[str, Any] = dict(zip([*RUN, "benchmark", "judge"], curve.group, strict=True))
    told = {"run_a": curve.run, "run_b": other, "attack": curve.attack, "fitted_on": curve.fitted_on}
    return {name: about[name] for name in about if name != "seed"} | told


def _ratio(own: Sequence[Curve], others: Sequence[Curve], settings: Settings) -> Row:
    ids = _common(curve.prompts.index for curve in (*own, *others))
    tables = [np.stack([curve.only(ids).shares["compliance"] for curve in some]) for some in (own, others)]
    clusters = own[0].only(ids).clusters
    found = seeded_half_budget_ratio(
        own[0].budgets, tables[0], others[0].budgets, tables[1], clusters, settings.resamples, settings.seed
    )
    told = {"value": found.ratio, "low": found.low, "high": found.high, "p": np.nan, "n": len(ids)}
    return {"measure": "half_compliance_ratio", "n_seeds": len(own)} | told


def _common(indices: Any) -> list[str]:
    """The prompts that all have."""
    return sorted(set.intersection(*(set(index) for index in indices)))
