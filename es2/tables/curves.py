"""Robustness curves as tables: each prompt's verdict at each budget of an attack (method.md §6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from es2.half_budget import half_compliance_budget
from es2.tables.verdicts import ATTACK, DIRECT, RUN, SHARES, Array, Settings, read_verdicts

GROUP = [*RUN, "benchmark", "judge"]
Budgets = Mapping[str, Mapping[str, list[float]]]
"""Model -> attack -> the budgets of comparison, one for each of `Settings.factors`: equal budgets of two attacks are no
equal pushes, so each is scaled to what it takes of the reference run."""


@dataclass(frozen=True)
class Curve:
    """One run under one attack on one benchmark.

    group: run, model, method, parent, seed, benchmark, judge; budgets [B] ascend and begin with 0, the direct
    request, where that was asked; prompts: index prompt_id, column cluster; shares: name -> [n, B] of 1, 0,
    or NaN (missing).
    """

    group: tuple[Any, ...]
    attack: str
    fitted_on: str
    budgets: Array
    prompts: pd.DataFrame
    shares: dict[str, Array]

    @property
    def run(self) -> str:
        return str(self.group[0])

    @property
    def model(self) -> str:
        return str(self.group[1])

    @property
    def where(self) -> tuple[Any, ...]:
        """What compared curves must share: attack, what it was fitted on, model, benchmark, judge."""
        return (self.attack, self.fitted_on, self.group[1], *self.group[len(RUN) :])

    @property
    def clusters(self) -> list[Any]:
        return list(self.prompts["cluster"])

    def covers(self, budget: float) -> bool:
        """Whether `budget` lies within the tested ones: a curve is never extended."""
        return bool(self.budgets[0] <= budget <= self.budgets[-1])

    def fixed(self, budgets: "Budgets") -> list[float]:
        """The budgets of comparison of this curve's model and attack; none where the reference was not attacked so."""
        return budgets.get(self.model, {}).get(self.attack, [])

    def at(self, budget: float) -> pd.DataFrame:
        """Each prompt's shares at `budget`, linear between tested ones; index prompt_id, column cluster."""
        right = int(np.clip(np.searchsorted(self.budgets, budget), min(1, len(self.budgets) - 1), None))
        left = max(right - 1, 0)
        width = self.budgets[right] - self.budgets[left]
        part = (budget - self.budgets[left]) / width if width > 0 else 1.0
        # A weight of 0 would still turn a verdict missing at the other budget into NaN.
        ends = [(k, w) for k, w in ((left, 1 - part), (right, part)) if w > 0]
        values = {name: sum(w * table[:, k] for k, w in ends) for name, table in self.shares.items()}
        return self.prompts.assign(**values)

    def within(self, budget: float) -> pd.DataFrame:
        """The same where `budget` may be larger than all that were tested: the largest stands for it then."""
        return self.at(min(budget, float(self.budgets[-1])))

    def only(self, ids: Sequence[str]) -> "Curve":
        """The curve on some of its prompts, in the order given."""
        places = self.prompts.index.get_indexer(list(ids))
        shares = {name: table[places] for name, table in self.shares.items()}
        return Curve(
            self.group, self.attack, self.fitted_on, self.budgets, self.prompts.iloc[places], shares
        )  # fmt: skip


def adaptive_curves(cells: pd.DataFrame) -> list[Curve]:
    """The curves of all attacks with a budget axis, controls left out, from test verdicts with the pool."""
    attacked = cells[cells["budget"].notna() & (cells["control"] == "")]
    direct = dict(iter(cells[cells["attack"] == DIRECT].groupby(GROUP, sort=False)))
    return [
        _curve(key[: len(GROUP)], key[-2], key[-1], cell, direct.get(key[: len(GROUP)]))
        for key, cell in attacked.groupby([*GROUP, *ATTACK], sort=False)
    ]


def parents_of(curves: Sequence[Curve]) -> dict[str, str]:
    """What each run of the curves starts from."""
    place = RUN.index("parent")
    return {curve.run: str(curve.group[place]) for curve in curves}


def _curve(
    group: tuple[Any, ...], attack: str, fitted_on: str, cell: pd.DataFrame, direct: pd.DataFrame | None
) -> Curve:
    prompts = cell.drop_duplicates("prompt_id").set_index("prompt_id")[["cluster"]].sort_index()
    if direct is not None:
        cell = pd.concat([direct[direct["prompt_id"].isin(prompts.index)].assign(budget=0.0), cell])
    wide = {share: cell.pivot(index="prompt_id", columns="budget", values=share) for share in SHARES}
    known = wide["refusal"].notna().any(axis=0)
    budgets = wide["refusal"].columns[known]
    shares = {share: table.loc[prompts.index, budgets].to_numpy(float) for share, table in wide.items()}
    return Curve(group, attack, fitted_on, np.asarray(budgets, dtype=float), prompts, shares)


def budget_free(cells: pd.DataFrame, group: tuple[Any, ...]) -> list[pd.DataFrame]:
    """The adaptive attacks without a budget axis on a run and benchmark; their strength is fixed in the config."""
    mine = cells[cells["budget"].isna() & (cells["fitted_on"] == "self") & (cells["control"] == "")]
    for column, value in zip(GROUP, group, strict=True):
        mine = mine[mine[column] == value]
    return [cell for _, cell in mine.groupby(["attack", "setting"], sort=False)]


def table_inputs(job: Any) -> tuple[pd.DataFrame, Budgets, Settings]:
    """Verdicts, budgets of comparison and settings: what the tables dsr, paired and robustness are made from.

    `job` has Snakemake's named inputs `verdicts` and `searches` (the attackers' searches on the reference run; may be
    empty) and params `searches` (model, run, seed, attack of each) and `cfg` (see `Settings`).
    """
    settings = Settings.from_params(job.params.cfg)
    budgets = budgets_of_models(job.input.get("searches", []), job.params.get("searches", []), settings)
    return read_verdicts(job.input.verdicts), budgets, settings


def budgets_of_models(searches: Sequence[str | Path], rows: Sequence[Mapping[str, Any]], settings: Settings) -> Budgets:
    """The budgets of comparison, from the searches of each model's reference run at its first seed.

    rows: model, run, seed, attack of each file of `searches`.
    """
    mine = [(row["seed"], i) for i, row in enumerate(rows) if row["run"] == settings.reference]
    found: dict[str, dict[str, list[float]]] = {}
    for _, i in sorted(mine):
        attacks = found.setdefault(rows[i]["model"], {})
        if rows[i]["attack"] not in attacks:
            attacks[rows[i]["attack"]] = fixed_budgets(pd.read_csv(searches[i]), settings.factors)
    return found


def fixed_budgets(search: pd.DataFrame, factors: Sequence[float]) -> list[float]:
    """The budgets of comparison: `factors` times a run's half-compliance budget on validation.

    search: the attacker's trials on validation (columns budget, compliance, chosen). Where compliance never
    reached one half there, the largest budget tried takes the place of the half-compliance budget.
    """
    chosen = search[search["chosen"].astype(str).str.lower().isin(("true", "1"))]
    curve = chosen.groupby("budget")["compliance"].mean()
    half = half_compliance_budget(curve.index.to_numpy(float), curve.to_numpy(float)[None], n_resamples=1)
    value = float(curve.index.max()) if half.censored else half.value
    return [factor * value for factor in factors]
