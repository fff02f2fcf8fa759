"""`rivals.csv`: the runs that the config sets against each other, under each attack (method.md section 7).

A selection from `paired.csv` and `robustness.csv`: the harmful tests pooled, the first judge, the budgets that bring
the reference run to half compliance on validation.
"""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from es2.reporting import Measure, Study, attack_name, budget_attacks, robustness_measure, robustness_rows, rows
from es2.tables.verdicts import RUN, WORST, WORST_OF_ALL

COLUMNS = [
    *RUN,
    "run_a",
    "run_b",
    "measure",
    "attack",
    "value",
    "low",
    "high",
    "censored",
    "p_adjusted",
    "n",
    "claimed",
]
SHOWN = {
    "half_compliance_ratio": "half-compliance budget, a over b",
    "dsr": "DSR, a minus b",
    "robust_dsr": "robust DSR, a minus b",
    "asr": "ASR, a minus b",
    "plain_refused": "plain requests refused, a minus b",
    "look_dangerous_refused": "look-dangerous requests refused, a minus b",
}
"""The measures with their words; after a comma stands the attack."""
Row = dict[str, Any]


def rivals_table(paired: pd.DataFrame, robustness: pd.DataFrame, study: Study) -> pd.DataFrame:
    """A row a pair of `study.pairs`, measure and attack, at the first seed of run_a; run ... seed are run_a's.

    `value`: for `half_compliance_ratio` run_a's half-compliance budget over run_b's (censored as in `robustness.csv`);
    for `asr` the compliances and for all others the refusals of run_a less those of run_b on the same prompts, in
    shares. `p_adjusted` is Holm's over the whole of `paired.csv`, of a ratio over all ratios of `robustness.csv`.
    `claimed`: it is at most 0.05; of harmful requests only where refusals and compliances go opposite ways, of a ratio
    where its interval leaves out 1 too.
    """
    out: list[Row] = []
    for a, b in study.pairs:
        both = rows(paired, study, run_a=a, run_b=b)
        both = both[both["seed"] == both["seed"].min()]
        mine, complied = (both[both["measure"] == measure] for measure in ("refusal", "compliance"))
        if mine.empty:
            continue
        head = {name: mine.iloc[0][name] for name in (*RUN, "run_a", "run_b")}
        known = {head["parent"]: "parent", study.control: "hold"}
        found = _ratios(robustness, study, a, known.get(b, b), int(head["seed"]))
        told = [*found, *_differences(mine, complied, study)]
        out += [head | row for row in told]
    return pd.DataFrame(out, columns=COLUMNS)


def _ratios(robustness: pd.DataFrame, study: Study, a: str, b: str, seed: int) -> Iterator[Row]:
    name = f"half_compliance_ratio_to_{b}"
    for attack in budget_attacks(robustness, study):
        found = robustness_measure(robustness, study, a, seed, name, attack=attack)
        if found.known or found.censored:
            told = {"value": found.value, "low": found.low, "high": found.high, "censored": found.censored}
            (row,) = robustness_rows(robustness, study, a, seed, name, "pooled", attack).to_dict("records")
            told["p_adjusted"] = row["p_adjusted"]
            told["claimed"] = told["p_adjusted"] <= 0.05 and (found.low > 1 or found.high < 1)
            yield {"measure": "half_compliance_ratio", "attack": attack} | told


def _differences(mine: pd.DataFrame, complied: pd.DataFrame, study: Study) -> Iterator[Row]:
    """Of refusals: of harmful requests under each attack and under all of them, and of compliances with these; then of
    refusals of harmless ones."""
    refused, fell = _of_harmful(mine), _of_harmful(complied)
    apart = {name: refused[name]["difference"] * fell[name]["difference"] < 0 for name in refused.keys() & fell.keys()}
    for attack, row in refused.items():
        measure = "robust_dsr" if attack in (WORST, WORST_OF_ALL) else "dsr"
        yield _row(measure, row, apart.get(attack, False))
    for attack, row in fell.items():
        yield _row("asr", row, apart.get(attack, False))
    for measure, name in (("plain_refused", study.plain), ("look_dangerous_refused", study.look_dangerous)):
        asked = mine[(mine["attack"] == "direct") & (mine["benchmark"] == name)]
        yield from (_row(measure, row) | {"attack": ""} for row in asked.to_dict("records"))


def _of_harmful(found: pd.DataFrame) -> dict[str, Any]:
    """{attack: row} on the harmful tests pooled, at the reference's budget; the worst cases last."""
    at_reference = found["factor"].isna() | (found["factor"] == 1)
    harmful = found[at_reference & (found["benchmark"] == "pooled") & found["fitted_on"].isin(("", "self"))]
    worst = harmful["attack"].isin((WORST, WORST_OF_ALL))
    return {row["attack"]: row for part in (harmful[~worst], harmful[worst]) for row in part.to_dict("records")}


def _row(measure: str, row: Any, consistent: bool = True) -> Row:
    told = {key: row[key] for key in ("low", "high", "p_adjusted", "n")}
    claimed = consistent and row["p_adjusted"] <= 0.05
    about = {"measure": measure, "attack": row["attack"], "claimed": claimed}
    return about | {"value": row["difference"], "censored": False} | told


def shown_rivals(rivals: pd.DataFrame, study: Study) -> tuple[list[str], list[list[str]]]:
    """The pairs as they are read: a head and rows of text, a column a pair, a row a measure.

    What has a star is claimed.
    """
    mine = rows(rivals, study)
    pairs = [pair for pair in study.pairs if pair in set(zip(mine["run_a"], mine["run_b"], strict=True))]
    cells = {(row.run_a, row.run_b, row.measure, row.attack): row for row in mine.itertuples()}
    keys = dict.fromkeys((measure, attack) for _, _, measure, attack in cells)
    body = []
    for measure, attack in sorted(keys, key=lambda key: list(SHOWN).index(key[0])):
        found = [cells.get((*pair, measure, attack)) for pair in pairs]
        name = f"{SHOWN[measure]}, {attack_name(attack)}" if attack else SHOWN[measure]
        body.append([name, *("not measured" if row is None else _text(row) for row in found)])
    return ["", *(f"a: {study.label(a)}; b: {study.label(b)}" for a, b in pairs)], body


def _text(row: Any) -> str:
    # A ratio without end is told by its lower bound.
    value = row.low if math.isinf(row.value) else row.value
    text = Measure(value, row.low, row.high, row.censored).text()
    return f"{text} *" if row.claimed else text
