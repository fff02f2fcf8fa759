"""`paired.csv`: differences between runs on the same prompts, Holm over all but the primary (§7)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from es2.compared import compared_with
from es2.statistics import holm, paired_difference
from es2.tables.curves import Budgets, Curve, adaptive_curves, parents_of
from es2.tables.robustness import partner
from es2.tables.verdicts import ATTACK, RUN, Settings, aimed_at, with_pool
from es2.tables.worst import worst_cases

WHERE = [*ATTACK, "benchmark", "judge"]
COLUMNS = [
    *RUN, "run_a", "run_b", *ATTACK, "benchmark", "measure", "difference", "low", "high", "p", "p_adjusted",
    "budget", "factor", "n", "primary", "judge",
]  # fmt: skip
MEASURES = ("refusal", "compliance")
Row = dict[str, Any]
Pair = tuple[pd.DataFrame, pd.DataFrame, Row]


def paired_table(verdicts: pd.DataFrame, budgets: Budgets, settings: Settings) -> pd.DataFrame:
    """Difference run_a - run_b of refusal and of compliance under each attack, on the prompts both met.

    Each run is compared with its parent, with the control on the same parent, and with those that
    `settings.pairs` names. Attacks with a budget axis are compared at the fixed budgets of the model
    (`budget`, `factor`), and so is the worst case over them. run ... seed are those of run_a; run_b counts
    at the same seed, or at its own first. `primary` marks the one endpoint of the config: its p value
    stands as it is, all others are adjusted together.
    """
    rows = [
        head | {"measure": measure} | _difference(both, measure, settings)
        for head, both in comparisons(verdicts, budgets, settings)
        for measure in MEASURES
    ]
    return adjusted(pd.DataFrame(rows, columns=COLUMNS), settings)


def comparisons(verdicts: pd.DataFrame, budgets: Budgets, settings: Settings) -> Iterator[tuple[Row, pd.DataFrame]]:
    """Each comparison: who (run ... seed, run_a, run_b, attack, fitted_on, benchmark, judge, budget, factor), and the
    shares of both runs on the prompts that both met (columns prompt_id, cluster, `refusal_a`, `refusal_b`, ...)."""
    cells = aimed_at(with_pool(verdicts, settings.harmful), settings.harmful)
    columns = ["prompt_id", "cluster", *MEASURES]
    curves = adaptive_curves(cells)
    at_budgets = [*_at_budgets(curves, budgets, settings), *_worst(cells, budgets, settings)]
    for a, b, head in [*_free(cells, settings), *at_budgets]:
        both = a[columns].merge(b[columns].drop(columns="cluster"), on="prompt_id", suffixes=("_a", "_b"))
        if len(both):
            yield head, both


def adjusted(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """The table with `primary` and `p_adjusted`: Holm over all rows but the primary endpoint's."""
    table = table.assign(primary=_is_primary(table, dict(settings.primary)))
    rest = ~table["primary"].to_numpy(bool)
    p = table["p"].to_numpy(float).copy()
    p[rest] = holm(p[rest])
    return table.assign(p_adjusted=p)


def _is_primary(table: pd.DataFrame, primary: Mapping[str, Any]) -> "pd.Series[bool]":
    """The rows that equal the primary endpoint in each column it names; none where it names no column."""
    named = {key: value for key, value in primary.items() if key in table}
    keep = pd.Series(bool(named), index=table.index)
    for key, value in named.items():
        column = table[key]
        keep &= np.isclose(column.astype(float), value) if key in ("budget", "factor") else column == value
    return keep


def _free(cells: pd.DataFrame, settings: Settings) -> Iterator[Pair]:
    """Comparisons under attacks without a budget axis, controls left out."""
    cells = cells[cells["budget"].isna() & (cells["control"] == "")]
    parents = dict(zip(cells["run"], cells["parent"], strict=True))
    seeds = {run: sorted(set(part["seed"])) for run, part in cells.groupby("run")}
    found: dict[tuple[Any, ...], dict[str, pd.DataFrame]] = {}
    for key, cell in cells.groupby(["run", "model", "seed", *WHERE, "setting"], sort=False):
        found.setdefault(key[:-1], {})[key[-1]] = cell
    for (run, model, seed, *where), own in found.items():
        for other in compared_with(run, parents, settings.control, settings.pairs):
            have = seeds.get(other, [None])
            theirs = found.get((other, model, seed if seed in have else have[0], *where), {})
            for setting, cell in own.items():
                against = _same_setting(setting, own, theirs)
                if against is not None:
                    yield cell, against, _head(cell, other, where)


def _same_setting(
    setting: str, own: Mapping[str, pd.DataFrame], theirs: Mapping[str, pd.DataFrame]
) -> pd.DataFrame | None:
    """The other run's cell at `setting`, or at its only one: the name tells how many layers qualified."""
    if setting in theirs:
        return theirs[setting]
    return next(iter(theirs.values())) if len(theirs) == len(own) == 1 else None


def _head(cell: pd.DataFrame, other: str, where: Sequence[Any]) -> Row:
    first = cell.iloc[0]
    return {name: first[name] for name in RUN} | dict(zip(WHERE, where, strict=True)) | {
        "run_a": first["run"], "run_b": other,
    }  # fmt: skip


def _at_budgets(curves: Sequence[Curve], budgets: Budgets, settings: Settings) -> Iterator[Pair]:
    """Comparisons on the curves at the fixed budgets, where both were tested that far."""
    parents = parents_of(curves)
    for curve in curves:
        where = (curve.attack, curve.fitted_on, *curve.group[len(RUN) :])
        head = dict(zip(RUN, curve.group, strict=False)) | dict(zip(WHERE, where, strict=True))
        for other in compared_with(curve.run, parents, settings.control, settings.pairs):
            against = partner(curve, curves, other)
            if against is None:
                continue
            names = {"run_a": curve.run, "run_b": other}
            for factor, budget in zip(settings.factors, curve.fixed(budgets), strict=False):
                if curve.covers(budget) and against.covers(budget):
                    a, b = curve.at(budget).reset_index(), against.at(budget).reset_index()
                    yield a, b, head | names | {"budget": budget, "factor": factor}


def _worst(cells: pd.DataFrame, budgets: Budgets, settings: Settings) -> Iterator[Pair]:
    """Comparisons of the worst case over attacks, at each factor of the reference's budgets."""
    found: dict[tuple[Any, ...], dict[int, tuple[Row, pd.DataFrame]]] = {}
    for group, attack, factor, worst in worst_cases(cells, budgets, settings):
        who = dict(zip([*RUN, "benchmark", "judge"], group, strict=True))
        told = {"attack": attack, "fitted_on": "self", "budget": np.nan, "factor": factor}
        key = (who["model"], who["benchmark"], who["judge"], attack, factor, who["run"])
        found.setdefault(key, {})[who["seed"]] = (who | told, worst)
    parents = {who["run"]: who["parent"] for seeds in found.values() for who, _ in seeds.values()}
    for (*where, run), seeds in found.items():
        for other in compared_with(run, parents, settings.control, settings.pairs):
            theirs = found.get((*where, other), {})
            for seed, (head, own) in seeds.items():
                if theirs:
                    _, against = theirs.get(seed, theirs[min(theirs)])
                    yield own, against, head | {"run_a": run, "run_b": other}


def _difference(both: pd.DataFrame, measure: str, settings: Settings) -> Row:
    first, second = (both[f"{measure}_{side}"].to_numpy(float) for side in "ab")
    found = paired_difference(first, second, both["cluster"].tolist(), settings.resamples, settings.seed)
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p, "n": found.n}
