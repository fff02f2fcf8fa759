"""Small verdict frames, one letter a prompt, that tests of tables are made from."""

import math
from typing import Any

import pandas as pd

from es2.tables.verdicts import Settings, prepared

NAMES = {"r": "refusal", "c": "compliance", "d": "degenerate", "m": "missing"}
RUNS = {
    "base": {"method": "base", "parent": ""},
    "sft": {"method": "refusal_sft", "parent": "base"},
    "hold": {"method": "hold", "parent": "sft"},
    "es2": {"method": "es2", "parent": "sft"},
    "rival": {"method": "triplet", "parent": "sft"},
}
SETTINGS = Settings(
    harmful=("adv", "strong"), reference="sft", control="hold", safe=("plain",), resamples=200,
    primary=(("attack", "direct"), ("benchmark", "pooled"), ("measure", "refusal"), ("run_a", "es2"), ("run_b", "sft")),
)  # fmt: skip


def row(run: str, seed: int = 0) -> dict[str, Any]:
    return {"run": run, "model": "m", **RUNS[run], "seed": seed}


def cell(run: str, verdicts: str, benchmark: str = "adv", attack: str = "direct", **more: Any) -> list[dict[str, Any]]:
    """One verdict a prompt, by the first letter; prompt i of a benchmark is its own cluster."""
    rest = {"fitted_on": "", "setting": "", "budget": math.nan, "realised": math.nan, "control": "", "draw": 0}
    return [
        row(run, more.get("seed", 0)) | rest | {"attack": attack, "benchmark": benchmark, "split": "test"}
        | {"prompt_id": f"{benchmark}{i}", "cluster": 100 * len(benchmark) + i, "verdict": NAMES[v], "judge": "keyword"}
        | more
        for i, v in enumerate(verdicts)
    ]  # fmt: skip


def curve(run: str, benchmark: str, points: dict[float, str], attack: str = "scav_adaptive") -> list[dict[str, Any]]:
    return [
        line
        for budget, verdicts in points.items()
        for line in cell(run, verdicts, benchmark, attack, fitted_on="self", budget=budget, realised=budget)
    ]


def frame(*cells: list[dict[str, Any]]) -> pd.DataFrame:
    return prepared(pd.DataFrame([line for part in cells for line in part]))


def one(table: pd.DataFrame, **equal: Any) -> pd.Series:
    found = table
    for column, value in equal.items():
        found = found[found[column] == value]
    assert len(found) == 1, f"{len(found)} rows for {equal}"
    return found.iloc[0]


def study() -> pd.DataFrame:
    """Two runs on the same parent, four prompts a test set; compliance grows with the budget."""
    parts = []
    for run, weak in (("sft", True), ("hold", True), ("es2", False)):
        for benchmark in ("adv", "strong"):
            parts.append(cell(run, "rrrr" if run == "es2" else "rrrc", benchmark))
            points = {1.0: "rrcc", 2.0: "cccc"} if weak else {1.0: "rrrr", 2.0: "rrrc", 4.0: "cccc"}
            parts.append(curve(run, benchmark, points))
        parts.append(cell(run, "cccr", "plain"))
    return frame(*parts)


def search_table() -> pd.DataFrame:
    """An attacker's trials on validation."""
    rows = [(1, "a", 1.0, 0.9, False), (2, "a", 1.0, 0.25, True), (2, "b", 2.0, 0.75, True), (2, "a", 2.0, 0.1, False)]
    return pd.DataFrame(rows, columns=["stage", "setting", "budget", "compliance", "chosen"]).assign(n=8)
