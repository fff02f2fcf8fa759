"""SCAV at the paper's setting: one probe per layer, layers above an accuracy, one fixed P0 (method.md section 6)."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from es2.attacks.base import Attacked, Evaluation, answer_under, embeddings_of
from es2.attacks.controls import replay_controls
from es2.attacks.landing import Setting, directions, planes
from es2.attacks.planes import PlaneAttack, relative_budget
from es2.names import SELF

FITTED_ON = ("base", "parent", SELF)


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Answers under SCAV fitted on each model that has probes, and controls that replay the norms of the `self` one."""
    prompts = evaluation.prompts()
    setting = Setting("probability", float(settings["c"]), float(settings["accuracy"]), (0.0, 1.0))
    strength = torch.full((len(prompts),), -math.log(settings["p0"] / (1 - settings["p0"])))
    rows: list[dict[str, Any]] = []
    for fitted_on in FITTED_ON:
        if fitted_on not in evaluation.probes:
            continue
        probes = evaluation.probes[fitted_on]
        target = planes(setting, probes, strength)
        attack = PlaneAttack(
            directions(probes),
            torch.full((len(prompts),), probes.index(setting.c)),
            target,
            steps=blank_steps(target, evaluation),
        )
        name = f"P0={settings['p0']:g} {setting.name} ({len(attack.layers)} layers)"
        answers = answer_under(evaluation, attack, prompts["prompt"].tolist())
        unit = directions(probes)[probes.index(setting.c)]
        realised = relative_budget(embeddings_of(evaluation, prompts), unit, target).tolist()
        about = {"fitted_on": fitted_on, "setting": name}
        rows += evaluation.rows(prompts, answers, **about, realised=realised)
        if fitted_on == SELF and attack.steps is not None:
            rows += replay_controls(evaluation, prompts, attack.steps, setting.c, bundle["controls"], about)
    return Attacked(rows)


def blank_steps(target: torch.Tensor, evaluation: Evaluation) -> torch.Tensor:
    """Room for the edits' norms [n, L, T], NaN until written."""
    return torch.full((*target.shape, evaluation.max_new_tokens), torch.nan)
