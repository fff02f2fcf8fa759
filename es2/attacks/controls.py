"""Controls of SCAV and of addition: an attack's own step norms along directions that know nothing of harmfulness.

An attack that a random push equals shows nothing. The shuffled-label probe is the same fit on permuted labels.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from es2.attacks.base import Evaluation, answer_under
from es2.attacks.planes import ReplayAttack, random_directions


def replay_controls(
    evaluation: Evaluation,
    prompts: pd.DataFrame,
    steps: Tensor,
    c: float,
    controls: Mapping[str, int],
    about: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Answer rows under replayed norms `steps` [n, L, T] of `prompts`, on the first `controls["prompts"]` a benchmark.

    `controls["random"]` draws of random directions, `controls["shuffled"]` (0 or 1) along the shuffled-label probe.
    """
    chosen = list(controlled(prompts, controls).index)
    part = prompts.loc[chosen].reset_index(drop=True)
    rows: list[dict[str, Any]] = []
    for control in ("random", "shuffled"):
        draws = controls[control]
        if draws == 0:
            continue
        repeated = pd.concat([part] * draws, ignore_index=True)
        draw = torch.arange(draws).repeat_interleave(len(part))
        units = _directions(evaluation, control, c, draws, about["fitted_on"])
        attack = ReplayAttack(steps[chosen].repeat(draws, 1, 1), units, draw)
        answers = answer_under(evaluation, attack, repeated["prompt"].tolist())
        rows += evaluation.rows(repeated, answers, **about, control=control, draw=draw.tolist())
    return rows


def controlled(prompts: pd.DataFrame, controls: Mapping[str, int]) -> pd.DataFrame:
    """The first `controls["prompts"]` of each benchmark, on which controls are run."""
    return prompts.groupby("benchmark", sort=False).head(controls["prompts"])


def _directions(evaluation: Evaluation, control: str, c: float, draws: int, fitted_on: str) -> Tensor:
    """Unit directions [draws, L, d] of a control; the shuffled probe's point to what it takes for "safe"."""
    if control == "random":
        return random_directions(draws, evaluation.lm.n_layers, evaluation.lm.width, evaluation.seed)
    probes = evaluation.probes[fitted_on]
    weight = probes.shuffled_weight[probes.index(c)]
    return (-weight / weight.norm(dim=-1, keepdim=True))[None]
