"""Adaptive SCAV over budgets: the attacker chooses again for each run, on validation (method.md section 6).

A fixed P0 is a weaker attack on a model whose classes lie further apart. So the attacker gets a budget (RMS over edited
layers of |step| / |e| at the last prompt token) and may choose landing rule, probe strength, accuracy threshold and
layer window.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from es2.attacks.base import Attacked, Evaluation, answer_under, embeddings_of
from es2.attacks.landing import Setting, all_settings, directions, spend
from es2.attacks.planes import PlaneAttack
from es2.attacks.scav import blank_steps
from es2.attacks.search import Cell, by_cell, evaluate_over_budgets
from es2.generation import Answer
from es2.probes import ProbeSet


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """See `es2.attacks.search.evaluate_over_budgets`."""
    search = settings["search"]
    candidates = all_settings(search["rules"], search["c"], search["accuracy"], search["windows"])
    candidates = _distinct(candidates, evaluation.probes[evaluation.fitted_on])
    return evaluate_over_budgets(evaluation, candidates, partial(attack_cells, evaluation), settings, bundle)


def _distinct(candidates: Sequence[Setting], probes: ProbeSet) -> list[Setting]:
    """Candidates that differ in what they do: of several with the same rule, C and layers the first stands for all."""
    seen: dict[tuple[object, ...], Setting] = {}
    for setting in candidates:
        seen.setdefault((setting.rule, setting.c, tuple(setting.layers(probes))), setting)
    return list(seen.values())


def attack_cells(
    evaluation: Evaluation, prompts: pd.DataFrame, cells: Sequence[Cell[Setting]]
) -> tuple[list[list[Answer]], Tensor]:
    """Answers to `prompts` under every cell, all in the same batches, and the recorded steps [cells, n, L, T]."""
    probes = evaluation.probes[evaluation.fitted_on]
    embeddings = embeddings_of(evaluation, prompts)
    target = torch.cat([spend(cell.setting, probes, embeddings, cell.budget) for cell in cells])
    which = torch.tensor([probes.index(cell.setting.c) for cell in cells]).repeat_interleave(len(prompts))
    attack = PlaneAttack(directions(probes), which, target, steps=blank_steps(target, evaluation))
    answers = answer_under(evaluation, attack, prompts["prompt"].tolist() * len(cells))
    assert attack.steps is not None
    return by_cell(answers, len(cells)), attack.steps.reshape(len(cells), len(prompts), *attack.steps.shape[1:])
