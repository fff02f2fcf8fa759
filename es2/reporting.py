"""What figures, findings and card share: the study's names in their order, and selections from the tables.

Torch-free. A table is read with `read_table`, narrowed with `rows`, and turned into a `Measure` (a number
with its 95 % interval) where a sentence or a cell needs one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from es2.layers import chosen_layers
from es2.statistics import wilson

TEXT_COLUMNS = ("parent", "fitted_on", "setting", "benchmark", "split", "judge", "run_a", "run_b", "attack")
SHARES = ("refusal", "compliance", "degenerate")
ADAPTIVE = "scav_adaptive"
HARMFUL_REFUSED = 0.85
"""Target of a parent under the direct request: the least share of harmful requests refused."""
SAFE_REFUSED = (0.10, 0.25)
"""The same for harmless requests: the largest shares of plain and of look-dangerous ones."""
ATTACK_NAMES = {
    "direct": "direct request",
    "scav": "SCAV",
    "scav_random": "random push\n(control)",
    "scav_shuffled": "shuffled probe\n(control)",
    ADAPTIVE: "adaptive SCAV",
    "addition": "activation addition",
    "ablation": "direction ablation",
    "soft_prompt_random": "random vectors\n(control)",
    "ablation_random": "random direction\nablated (control)",
    "ablation_shuffled": "shuffled direction\nablated (control)",
    "sampled": "best of several samples",
    "sampled_single": "a single sample",
    "worst_case": "attacks over budgets",
    "worst_case_all": "all attacks",
}


@dataclass(frozen=True)
class Study:
    """The names that a page about one model needs, in the order in which they are shown.

    runs: every run shown, its place fixing its colour; base, parent, control, main: the untrained run, the
    run that ES2 starts from, the run with separation weight 0, and the ES2 run; harmful: the harmful test
    sets; plain, look_dangerous: the harmless ones; judge: the judge whose verdicts count; pairs: runs set
    against each other, beyond each against its parent and the control; labels: longer names of runs and sets.
    """

    model: str
    runs: tuple[str, ...]
    base: str = "base"
    parent: str = "refusal_sft"
    control: str = "hold"
    main: str = "es2"
    harmful: tuple[str, ...] = ("advbench", "strongreject")
    plain: str = "plain"
    look_dangerous: str = "look_dangerous"
    judge: str = "keyword"
    pairs: tuple[tuple[str, str], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_params(cls, cfg: Mapping[str, Any]) -> "Study":
        """The study from the plain dict that a rule passes as `params.cfg`; keys it does not know are
        ignored.
        """
        known = {key: value for key, value in cfg.items() if key in cls.__dataclass_fields__}
        for key in ("runs", "harmful"):
            if key in known:
                known[key] = tuple(known[key])
        known["pairs"] = tuple((a, b) for a, b in known.get("pairs", ()))
        return cls(**known)

    @property
    def attacked(self) -> tuple[str, ...]:
        """The runs that meet every attack: the trained ones, and the untrained one where they start from it."""
        return tuple(run for run in self.runs if run != self.base or self.base == self.parent)

    def label(self, name: str) -> str:
        """The name as a reader sees it."""
        return self.labels.get(name, name.replace("_", " "))


def attack_name(attack: str) -> str:
    """An attack of the config, its control or a worst case, as a reader sees it."""
    return ATTACK_NAMES.get(attack, attack.replace("_", " "))


@dataclass(frozen=True)
class Measure:
    """A value with its 95 % interval; NaN where nothing was measured.

    `censored`: the event was not seen within the range tried; `value` is then the largest value tried, a
    lower bound. A censored ratio without a value is one to what was never seen: `high` bounds it, unless its own was
    not seen either.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    censored: bool = False

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)

    def text(self, digits: int = 2) -> str:
        """`0.95 [0.89, 0.98]`, `> 0.10 (never)` when censored, `not measured` when not measured; `< 0.80` or `both
        never` of a ratio to what was never seen."""
        if self.censored and not self.known:
            return f"< {number(self.high, digits)}" if math.isfinite(self.high) else "both never"
        if not self.known:
            return "not measured"
        if self.censored:
            return f"> {number(self.value, digits)} (never)"
        if math.isnan(self.low) or math.isnan(self.high):
            return number(self.value, digits)
        return f"{number(self.value, digits)} [{number(self.low, digits)}, {number(self.high, digits)}]"


def number(value: float, digits: int = 2) -> str:
    """A number with `digits` decimals, without a negative zero; an open end as the sign of infinity."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def read_table(path: str | Path) -> pd.DataFrame:
    """A table of the contract, empty cells of its text columns as "", `censored` as a boolean."""
    table = pd.read_csv(path)
    for column in TEXT_COLUMNS:
        if column in table:
            table[column] = table[column].fillna("").astype(str)
    if "censored" in table:
        table["censored"] = table["censored"].astype(str).str.lower().isin(("true", "1"))
    return table


def rows(table: pd.DataFrame, study: Study, **equal: Any) -> pd.DataFrame:
    """The rows of the study's model and runs where each named column equals the value given."""
    keep = pd.Series(True, index=table.index)
    if "model" in table:
        keep &= table["model"] == study.model
    if "run" in table:
        keep &= table["run"].isin(study.runs)
    if "judge" in table and study.judge:
        keep &= table["judge"] == study.judge
    for column, value in equal.items():
        keep &= table[column] == value
    return table[keep]


def shown_runs(table: pd.DataFrame, study: Study) -> list[str]:
    """The runs of the study that the table has, in the study's order."""
    present = set(rows(table, study)["run"])
    return [run for run in study.runs if run in present]


def seeds(table: pd.DataFrame, run: str) -> list[int]:
    """The seeds of a run in a table, ascending."""
    return sorted({int(seed) for seed in table.loc[table["run"] == run, "seed"]})


def one_seed(table: pd.DataFrame, run: str, seed: int) -> pd.DataFrame:
    """A run's rows at `seed`, or at its own first seed where it has no such one (untrained runs exist at 0
    only).
    """
    mine = table[table["run"] == run]
    have = seeds(table, run)
    if not have:
        return mine
    return mine[mine["seed"] == (seed if seed in have else have[0])]


def pooled(cells: pd.DataFrame) -> dict[str, Measure]:
    """Refusal, compliance and degenerate shares over cells of `dsr.csv`, each with its interval.

    One cell keeps the table's own interval of its refusals; else the interval is Wilson's, each cell weighing
    as many answers as were judged. The draws of a random control are the same prompts again: they enter the
    mean, not the number of prompts.
    """
    judged = (cells["n"] - cells["n_missing"]).astype(float)
    total = float(judged.sum())
    prompts = float((judged * cells["n_prompts"] / cells["n"]).sum()) if "n_prompts" in cells else total
    out = {}
    for share in SHARES:
        value = float((cells[share] * judged).sum()) / total if total else math.nan
        interval = wilson(round(value * round(prompts)) if total else 0, round(prompts))
        out[share] = Measure(value, interval.low, interval.high)
    if len(cells) == 1:
        row = cells.iloc[0]
        out["refusal"] = Measure(float(row["dsr"]), float(row["dsr_low"]), float(row["dsr_high"]))
    return out


def on_benchmarks(cells: pd.DataFrame, study: Study, benchmarks: tuple[str, ...]) -> pd.DataFrame:
    """The cells on the benchmarks; of all harmful tests together the table's own pooled rows, where it has
    them.
    """
    whole = cells[cells["benchmark"] == "pooled"]
    if benchmarks == study.harmful and len(whole):
        return whole
    return cells[cells["benchmark"].isin(benchmarks)]


def direct_cells(dsr: pd.DataFrame, study: Study, run: str, seed: int, benchmarks: tuple[str, ...]) -> pd.DataFrame:
    """A run's test cells under the direct request on the benchmarks named."""
    cells = rows(dsr, study, attack="direct", split="test")
    return on_benchmarks(one_seed(cells, run, seed), study, benchmarks)


def curve(
    dsr: pd.DataFrame, study: Study, run: str, seed: int, attack: str = ADAPTIVE, fitted_on: str = "self"
) -> pd.DataFrame:
    """The robustness curve of a run over the harmful tests pooled: one row a budget, the direct request at 0.

    Columns: budget, and for each share its name, `_low`, `_high`. Empty where the run was not attacked so.
    """
    cells = rows(dsr, study, attack=attack, fitted_on=fitted_on, split="test")
    cells = on_benchmarks(one_seed(cells[cells["budget"].notna()], run, seed), study, study.harmful)
    if cells.empty:
        return pd.DataFrame()
    points: list[tuple[float, pd.DataFrame]] = [(0.0, direct_cells(dsr, study, run, seed, study.harmful))]
    points += [(float(budget), group) for budget, group in cells.groupby("budget")]
    return pd.DataFrame([_curve_row(budget, group) for budget, group in points if len(group)])


def budget_attacks(robustness: pd.DataFrame, study: Study) -> list[str]:
    """The adaptive attacks with a budget axis that the study ran, adaptive SCAV first."""
    found = set(rows(robustness, study, measure="half_compliance_budget")["attack"])
    return sorted(found, key=lambda attack: (attack != ADAPTIVE, attack))


def _curve_row(budget: float, cells: pd.DataFrame) -> dict[str, float]:
    row = {"budget": budget}
    for share, measure in pooled(cells).items():
        row |= {share: measure.value, f"{share}_low": measure.low, f"{share}_high": measure.high}
    return row


def robustness_measure(
    robustness: pd.DataFrame,
    study: Study,
    run: str,
    seed: int,
    measure: str,
    benchmark: str = "pooled",
    attack: str = ADAPTIVE,
) -> Measure:
    """One measure of `robustness.csv` under an adaptive attack fitted on the run itself."""
    found = robustness_rows(robustness, study, run, seed, measure, benchmark, attack)
    if found.empty:
        return Measure()
    row = found.iloc[0]
    return Measure(float(row["value"]), float(row["low"]), float(row["high"]), bool(row["censored"]))


def robustness_rows(
    robustness: pd.DataFrame, study: Study, run: str, seed: int, measure: str, benchmark: str, attack: str
) -> pd.DataFrame:
    """The row of that measure, if it was measured."""
    found = rows(robustness, study, attack=attack, fitted_on="self", measure=measure, benchmark=benchmark)
    return one_seed(found, run, seed)


def half_budget(
    robustness: pd.DataFrame, dsr: pd.DataFrame, study: Study, run: str, seed: int, attack: str = ADAPTIVE
) -> Measure:
    """The half-compliance budget on the tests pooled; when censored, the largest tried."""
    found = robustness_measure(robustness, study, run, seed, "half_compliance_budget", attack=attack)
    if not found.censored:
        return found
    points = curve(dsr, study, run, seed, attack)
    largest = float(points["budget"].max()) if len(points) else found.value
    low = found.low if math.isfinite(found.low) else largest
    return Measure(largest, low, math.inf, True)


def separation(separability: pd.DataFrame, study: Study, run: str, seed: int, metric: str, layer: int) -> Measure:
    """One separability metric of a run at a layer, on test prompts."""
    found = one_seed(rows(separability, study, metric=metric, layer=layer, split="test"), run, seed)
    if found.empty:
        return Measure()
    row = found.iloc[0]
    return Measure(float(row["value"]), float(row["low"]), float(row["high"]))


def mean_measure(measures: list[Measure]) -> Measure:
    """The mean of measures, and of their interval ends (at least as wide as the mean's own interval)."""
    if not measures:
        return Measure()
    count = len(measures)
    return Measure(
        sum(m.value for m in measures) / count,
        sum(m.low for m in measures) / count,
        sum(m.high for m in measures) / count,
    )


def kl(ability: pd.DataFrame, study: Study, run: str, seed: int, reference: str = "parent") -> Measure:
    """KL to the run's own parent or to the base in nats on held-out harmless prompts.

    Where several prompt sets are told apart, the plain ones count.
    """
    name = f"kl_to_{reference}"
    found = rows(ability, study)
    found = one_seed(found[(found["task"] == name) | (found["metric"] == name)], run, seed)
    plain = found[(found["task"] == study.plain) | (found["metric"] == study.plain)]
    found = plain if len(plain) else found
    if found.empty:
        return Measure()
    row = found.iloc[0]
    return Measure(float(row["value"]), float(row["low"]), float(row["high"]))


def trained_layers(cfg: Mapping[str, Any], path: str | Path) -> list[int]:
    """The layers that ES2 trained; see `es2.layers.chosen_layers`."""
    return chosen_layers(cfg.get("layers", "auto"), path)


def first_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run at its first seed."""
    return table[table["seed"] == table.groupby("run")["seed"].transform("min")]


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table of texts."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def markdown_page(tables: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]], studies: Sequence[Study]) -> str:
    """Tables of several models (head and rows) one below the other, each under its model's name."""
    parts = [
        f"{study.label(study.model)}:\n\n{markdown_table(*table)}\n"
        for table, study in zip(tables, studies, strict=True)
    ]
    return "\n".join(parts)
