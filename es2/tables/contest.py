"""`contest.csv`: how each run holds against all adaptive attacks, and what that cost (method.md sections 5 to 8).

A run competes if it keeps to the bounds that trials keep to, here on test prompts (KL: on held-out validation ones; of
degenerate answers, what it adds to its parent's). Budgets of two attacks are no equal pushes, so the half-compliance
budget of a run counts in multiples of its parent's under the same attack, and of several attacks the one that it holds
worst.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from es2.reporting import (
    Measure,
    Study,
    attack_name,
    budget_attacks,
    direct_cells,
    first_seeds,
    half_budget,
    on_benchmarks,
    one_seed,
    pooled,
    robustness_measure,
    rows,
    seeds,
)
from es2.tables.verdicts import RUN, WORST, WORST_OF_ALL

COLUMNS = [*RUN, "measure", "attack", "factor", "value", "low", "high", "censored", "bound", "kept"]
SHOWN = {
    "kl_heldout": "KL to own parent, on the prompts held out in training",
    "plain_refused": "plain requests refused",
    "look_dangerous_refused": "look-dangerous requests refused",
    "plain_degenerate": "plain requests answered degenerately",
    "dsr": "DSR",
    "half_compliance_budget": "half-compliance budget",
    "half_compliance_ratio": "half-compliance budget over the parent's",
    "plain_degenerate_at_half": "plain answers degenerate at the half-compliance budget",
    "robust_dsr": "robust DSR",
}
"""The measures that a reader is shown, in this order, with their words; after a comma stands the attack."""
THREE_DIGITS = ("kl_heldout", "half_compliance_budget")
Row = dict[str, Any]


def contest_table(
    dsr: pd.DataFrame, robustness: pd.DataFrame, training: pd.DataFrame, study: Study, bounds: Mapping[str, float]
) -> pd.DataFrame:
    """A row a run, seed, measure and attack, of one model's trained runs. All tables are of the same scope.

    bounds: `kl_heldout`, `plain_refused`, `plain_degenerate_added`; `bound` and `kept` are empty where a measure has
    none.
    """
    out: list[Row] = []
    names = rows(dsr, study).drop_duplicates(["run", "seed"]).set_index(["run", "seed"])
    for run in study.attacked:
        for seed in seeds(rows(dsr, study), run):
            about = names.loc[(run, seed)]
            head = {"run": run, "model": study.model, "seed": seed}
            head |= {"method": about["method"], "parent": about["parent"]}
            # The parent is what the others are measured by: it does not compete, and its own parent is the base.
            mine = {} if run == study.parent else bounds
            costs = list(_costs(dsr, training, study, head, mine))
            told = [row["kept"] for row in costs if "kept" in row]
            competes = [_row("competes", Measure(float(all(told)))) | {"kept": all(told)}] if told else []
            found = [*costs, *competes, *_free(dsr, study, run, seed), *_budgets(dsr, robustness, study, run, seed)]
            out += [head | row for row in [*found, *_worst(dsr, study, run, seed)]]
    return pd.DataFrame(out, columns=COLUMNS)


def _row(measure: str, found: Measure, attack: str = "", factor: float = math.nan) -> Row:
    value = math.inf if found.censored and found.known else found.value
    told = {"value": value, "low": found.low, "high": found.high}
    return {"measure": measure, "attack": attack, "factor": factor, **told, "censored": found.censored}


def _costs(
    dsr: pd.DataFrame, training: pd.DataFrame, study: Study, of: Mapping[str, Any], bounds: Mapping[str, float]
) -> Iterator[Row]:
    """Without attack: KL on held-out harmless prompts, harmless requests refused, degenerate answers to plain ones and
    what the run adds to its parent's. of: run, parent, seed."""
    run, seed = of["run"], of["seed"]
    watched = rows(training, study, run=run, seed=seed)
    watched = watched[watched["kl_heldout"].notna() & watched["kept"].astype(bool)]
    measures = {"kl_heldout": Measure(float(watched["kl_heldout"].iloc[-1])) if len(watched) else Measure()}
    plain = pooled(direct_cells(dsr, study, run, seed, (study.plain,)))
    measures |= {"plain_refused": plain["refusal"], "plain_degenerate": plain["degenerate"]}
    before = pooled(direct_cells(dsr, study, of["parent"], seed, (study.plain,)))["degenerate"]
    measures["plain_degenerate_added"] = Measure(round(plain["degenerate"].value - before.value, 9))
    looking = pooled(direct_cells(dsr, study, run, seed, (study.look_dangerous,)))
    measures["look_dangerous_refused"] = looking["refusal"]
    for name, found in measures.items():
        bound = {"bound": bounds[name], "kept": found.value <= bounds[name]} if name in bounds else {}
        yield _row(name, found) | bound


def _free(dsr: pd.DataFrame, study: Study, run: str, seed: int) -> Iterator[Row]:
    """DSR on the harmful tests pooled, under the direct request and the attacks without a budget."""
    cells = rows(dsr, study, split="test")
    cells = cells[cells["budget"].isna() & cells["fitted_on"].isin(("", "self"))]
    for attack in dict.fromkeys(cells["attack"]):
        mine = on_benchmarks(one_seed(cells[cells["attack"] == attack], run, seed), study, study.harmful)
        if (
            len(mine)
            and attack not in (WORST, WORST_OF_ALL)
            and not attack.endswith(("_random", "_shuffled", "_single"))
        ):
            yield _row("dsr", pooled(mine)["refusal"], attack)


def _budgets(dsr: pd.DataFrame, robustness: pd.DataFrame, study: Study, run: str, seed: int) -> Iterator[Row]:
    """Under each attack over budgets the half-compliance budget, its ratio to the parent's, and how harmless prompts
    fare under the edit at that budget; of the ratios the least."""
    ratios = {}
    for attack in budget_attacks(robustness, study):
        half = half_budget(robustness, dsr, study, run, seed, attack)
        if not half.known:
            continue
        yield _row("half_compliance_budget", half, attack)
        yield _row("plain_degenerate_at_half", _harmless(dsr, study, run, seed, attack, half.value), attack)
        ratio = robustness_measure(robustness, study, run, seed, "half_compliance_ratio_to_parent", attack=attack)
        if run == study.parent:
            ratio = Measure(1.0, 1.0, 1.0)
        if ratio.known or ratio.censored:
            ratios[attack] = ratio
            yield _row("half_compliance_ratio", ratio, attack)
    if ratios:
        weakest = min(ratios, key=lambda attack: ratios[attack].value if ratios[attack].known else ratios[attack].high)
        yield _row("least_half_compliance_ratio", ratios[weakest], weakest)


def _harmless(dsr: pd.DataFrame, study: Study, run: str, seed: int, attack: str, budget: float) -> Measure:
    """Degenerate share of the answers to plain prompts under an attack's edit, linear between the tested budgets."""
    cells = rows(dsr, study, attack=attack, fitted_on="self", split="test", benchmark=study.plain)
    cells = one_seed(cells, run, seed).sort_values("budget")
    if cells.empty or not cells["budget"].min() <= budget <= cells["budget"].max():
        return Measure()
    return Measure(float(np.interp(budget, cells["budget"], cells["degenerate"])))


def _worst(dsr: pd.DataFrame, study: Study, run: str, seed: int) -> Iterator[Row]:
    """Robust DSR: refused under every attack over budgets, and under every attack, at each factor."""
    for attack in (WORST, WORST_OF_ALL):
        cells = one_seed(rows(dsr, study, attack=attack, benchmark="pooled", split="test"), run, seed)
        for row in cells.sort_values("factor").itertuples():
            yield _row("robust_dsr", Measure(row.dsr, row.dsr_low, row.dsr_high), attack, row.factor)


def shown_contest(contest: pd.DataFrame, study: Study) -> tuple[list[str], list[list[str]]]:
    """The contest as it is read, at each run's first seed: a head and rows of text, a column a run, a row a measure.

    What only some runs have (an attack that was not tried on them) is told as not measured.
    """
    mine = contest[(contest["model"] == study.model) & contest["run"].isin(study.runs)]
    mine = first_seeds(mine)
    runs = [run for run in study.runs if run in set(mine["run"])]
    cells = {(row.run, row.measure, row.attack, row.factor): row for row in mine.fillna({"factor": 1}).itertuples()}
    keys = dict.fromkeys(key[1:] for key in cells if key[1] in SHOWN and key[3] == 1)
    body = []
    for measure, attack, factor in sorted(keys, key=lambda key: list(SHOWN).index(key[0])):
        found = [cells.get((run, measure, attack, factor)) for run in runs]
        body.append([_name(measure, attack), *(Measure().text() if row is None else _text(row) for row in found)])
    return ["", *(study.label(run) for run in runs)], body


def _name(measure: str, attack: str) -> str:
    return f"{SHOWN[measure]}, {attack_name(attack)}" if attack else SHOWN[measure]


def _text(row: Any) -> str:
    digits = 3 if row.measure in THREE_DIGITS else 2
    if math.isinf(row.value):
        return f"> {row.low:.{digits}f} (never)"
    return Measure(row.value, row.low, row.high).text(digits)
