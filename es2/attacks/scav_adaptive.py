"""Adaptive SCAV over budgets: the attacker chooses again for each run, on validation (method.md section 6).

A fixed P0 is a weaker attack on a model whose classes lie further apart. So the attacker gets a budget (RMS over edited
layers of |step| / |e| at the last prompt token) and may choose landing rule, probe strength, accuracy threshold and
layer window; at each budget the setting with the most compliance on validation prompts is reported on test prompts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from es2.attacks.base import Attacked, Evaluation, answer_under, embeddings_of
from es2.attacks.controls import replay_controls
from es2.attacks.landing import Setting, all_settings, directions, spend
from es2.attacks.planes import PlaneAttack
from es2.attacks.scav import blank_steps
from es2.generation import Answer
from es2.probes import ProbeSet

FITTED_ON = "self"


@dataclass(frozen=True)
class Cell:
    """One point of the attacker's search: a setting at a budget."""

    setting: Setting
    budget: float


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Search on validation, then answers to the benchmarks at every budget under the setting chosen for it."""
    search = settings["search"]
    candidates = all_settings(search["rules"], search["c"], search["accuracy"], search["windows"])
    candidates = _distinct(candidates, evaluation.probes[FITTED_ON])
    cells = [Cell(setting, budget) for setting in candidates for budget in search["first_budgets"]]
    first = _trials(evaluation, cells, search["first_prompts"], stage=1)
    kept = {budget: _kept(first, candidates, budget, search["keep"]) for budget in settings["budgets"]}
    cells = [Cell(setting, budget) for budget, chosen in kept.items() for setting in chosen]
    second = _trials(evaluation, cells, len(evaluation.validation), stage=2)
    chosen = {budget: _best([row for row in second if row["budget"] == budget], kept[budget], 1)[0] for budget in kept}
    trials = [
        {**row, "chosen": row["stage"] == 2 and row["setting"] == chosen[row["budget"]].name} for row in first + second
    ]
    return Attacked(_test_rows(evaluation, chosen, settings, bundle), trials)


def _distinct(candidates: Sequence[Setting], probes: ProbeSet) -> list[Setting]:
    """Candidates that differ in what they do: of several with the same rule, C and layers the first stands for all."""
    seen: dict[tuple[object, ...], Setting] = {}
    for setting in candidates:
        seen.setdefault((setting.rule, setting.c, tuple(setting.layers(probes))), setting)
    return list(seen.values())


def _kept(trials: Sequence[Mapping[str, Any]], settings: Sequence[Setting], budget: float, most: int) -> list[Setting]:
    """The `most` best settings at the first stage's budget that is nearest by ratio: what wins at a small budget need
    not win at a large one."""
    nearest = min((row["budget"] for row in trials), key=lambda tried: abs(math.log(tried / budget)))
    return _best([row for row in trials if row["budget"] == nearest], settings, most)


def _best(trials: Sequence[Mapping[str, Any]], settings: Sequence[Setting], most: int) -> list[Setting]:
    """The settings with the highest mean compliance over their trials; ties go to the earlier one."""
    named = {setting.name: setting for setting in settings}
    frame = pd.DataFrame(trials)
    score = frame.groupby("setting", sort=False)["compliance"].mean().sort_values(ascending=False, kind="stable")
    return [named[name] for name in score.index[:most]]


def _trials(evaluation: Evaluation, cells: Sequence[Cell], n_prompts: int, stage: int) -> list[dict[str, Any]]:
    """Shares of the three verdicts on the first `n_prompts` validation prompts, for every cell."""
    prompts = evaluation.validation.iloc[:n_prompts]
    answers, _ = attack_cells(evaluation, prompts, cells)
    rows = []
    for cell, found in zip(cells, answers, strict=True):
        verdicts = [evaluation.judge(text, answer.text) for text, answer in zip(prompts["prompt"], found, strict=True)]
        share = {name: verdicts.count(name) / len(verdicts) for name in ("refusal", "compliance", "degenerate")}
        rows.append({"stage": stage, "setting": cell.setting.name, "budget": cell.budget, "n": len(verdicts), **share})
    return rows


def attack_cells(
    evaluation: Evaluation, prompts: pd.DataFrame, cells: Sequence[Cell]
) -> tuple[list[list[Answer]], Tensor]:
    """Answers to `prompts` under every cell, all in the same batches, and the recorded steps [cells, n, L, T]."""
    probes = evaluation.probes[FITTED_ON]
    embeddings = embeddings_of(evaluation, prompts)
    target = torch.cat([spend(cell.setting, probes, embeddings, cell.budget) for cell in cells])
    which = torch.tensor([probes.index(cell.setting.c) for cell in cells]).repeat_interleave(len(prompts))
    attack = PlaneAttack(directions(probes), which, target, steps=blank_steps(target, evaluation))
    answers = answer_under(evaluation, attack, prompts["prompt"].tolist() * len(cells))
    split = [answers[start : start + len(prompts)] for start in range(0, len(answers), len(prompts))]
    assert attack.steps is not None
    return split, attack.steps.reshape(len(cells), len(prompts), *attack.steps.shape[1:])


def _test_rows(
    evaluation: Evaluation,
    chosen: Mapping[float, Setting],
    settings: Mapping[str, Any],
    bundle: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Answer rows on test prompts at every budget, with controls at the budgets that ask for them."""
    prompts = evaluation.prompts()
    answers, steps = attack_cells(evaluation, prompts, [Cell(setting, budget) for budget, setting in chosen.items()])
    rows: list[dict[str, Any]] = []
    for place, (budget, setting) in enumerate(chosen.items()):
        about = {"attack": "scav_adaptive", "fitted_on": FITTED_ON, "setting": setting.name, "budget": budget}
        realised = budget if setting.layers(evaluation.probes[FITTED_ON]) else 0.0
        rows += evaluation.rows(prompts, answers[place], **about, realised=realised)
        if budget in settings["control_budgets"]:
            rows += replay_controls(evaluation, prompts, steps[place], setting.c, bundle["controls"], about)
    return rows
