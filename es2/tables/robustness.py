"""`robustness.csv`: half-compliance budgets, their ratios, and DSR at fixed budgets (method.md §6)."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from es2.compared import compared_with
from es2.half_budget import (
    half_budget_p,
    half_budget_ratio,
    half_compliance_budget,
    interpolate_at_budget,
)
from es2.statistics import holm, wilson
from es2.tables.curves import Budgets, Curve, adaptive_curves, parents_of
from es2.tables.verdicts import ATTACK, RUN, Settings, aimed_at, with_pool

COLUMNS = [
    *RUN,
    *ATTACK,
    "benchmark",
    "measure",
    "budget",
    "value",
    "low",
    "high",
    "censored",
    "factor",
    "judge",
    "p",
    "p_adjusted",
]
Row = dict[str, Any]


def robustness_table(verdicts: pd.DataFrame, budgets: Budgets, settings: Settings) -> pd.DataFrame:
    """The measures of every curve, a row each.

    verdicts: from `read_verdicts`; budgets: the fixed ones. A
    half-compliance budget that was not reached is `censored` with the value inf; a ratio (to the parent's, to the
    control's, to those of the runs that `settings.pairs` names) is censored where either budget is, inf where the
    run's own is, NaN where the other is; `low` and `high` are then bounds. A ratio has the p value of
    `half_budget_p`, adjusted by Holm over all ratios of the table.
    """
    curves = adaptive_curves(aimed_at(with_pool(verdicts, settings.harmful), settings.harmful))
    rows: list[Row] = []
    for curve in curves:
        rows += [
            _half(curve, settings),
            *_ratios(curve, curves, settings),
            *_at(curve, curve.fixed(budgets), settings),
        ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.assign(p_adjusted=holm(table["p"].astype(float)))


def _head(curve: Curve, measure: str) -> Row:
    *run, benchmark, judge = curve.group
    told = {"attack": curve.attack, "fitted_on": curve.fitted_on, "benchmark": benchmark, "measure": measure}
    return dict(zip(RUN, run, strict=True)) | told | {"judge": judge, "censored": False}


def _half(curve: Curve, settings: Settings) -> Row:
    compliance = curve.shares["compliance"]
    half = half_compliance_budget(curve.budgets, compliance, curve.clusters, settings.resamples, settings.seed)
    told = {"value": half.value, "low": half.low, "high": half.high, "censored": half.censored}
    return _head(curve, "half_compliance_budget") | told


def _ratios(curve: Curve, curves: Sequence[Curve], settings: Settings) -> Iterator[Row]:
    parents = parents_of(curves)
    names = {settings.control: "hold", parents[curve.run]: "parent"}
    for other in compared_with(curve.run, parents, settings.control, settings.pairs):
        against = partner(curve, curves, other)
        if against is None:
            continue
        ids = [i for i in curve.prompts.index if i in against.prompts.index]
        a, b = curve.only(ids), against.only(ids)
        ratio = half_budget_ratio(
            a.budgets, a.shares["compliance"], b.budgets, b.shares["compliance"], a.clusters,
            settings.resamples, settings.seed,
        )  # fmt: skip
        told = {"value": ratio.ratio, "low": ratio.low, "high": ratio.high, "censored": ratio.censored}
        told["p"] = half_budget_p(
            a.budgets, a.shares["compliance"], b.budgets, b.shares["compliance"], a.clusters, settings.seed
        )
        yield _head(curve, f"half_compliance_ratio_to_{names.get(other, other)}") | told


def partner(curve: Curve, curves: Sequence[Curve], run: str) -> Curve | None:
    """The curve of another run at the same attack, benchmark, judge and seed, or at its own first seed."""
    if run in ("", curve.run):
        return None
    seed = RUN.index("seed")
    alike = [c for c in curves if c.run == run and c.where == curve.where]
    alike.sort(key=lambda c: (c.group[seed] != curve.group[seed], c.group[seed]))
    return alike[0] if alike else None


def _at(curve: Curve, budgets: Sequence[float], settings: Settings) -> Iterator[Row]:
    for factor, budget in zip(settings.factors, budgets, strict=False):
        found = interpolate_at_budget(
            curve.budgets, curve.shares["refusal"], budget, curve.clusters, settings.resamples, settings.seed
        )
        told = {"value": found.value, "low": found.low, "high": found.high}
        if curve.covers(budget):  # a bootstrap alone has no width at 0 and 1
            n = int(curve.at(budget)["refusal"].notna().sum())
            least = wilson(round(found.value * n), n)
            told |= {"low": min(found.low, least.low), "high": max(found.high, least.high)}
        yield _head(curve, "dsr_at_budget") | told | {"budget": budget, "factor": factor}
