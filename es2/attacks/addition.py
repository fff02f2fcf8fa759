"""Activation addition over budgets: a fixed step towards "safe" at every edited layer (RepE, section 6).

    e' = e + b |e_0| u

with b the budget, |e_0| the norm of the prompt's own unedited embedding, and u the mean difference or a probe's
direction (Zou et al. 2023, arXiv:2310.01405): unlike SCAV it pushes however far e already is. At the last prompt token
and at every generated one. The attacker chooses direction and layer window for each run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from es2.attacks.base import Attacked, Evaluation, answer_under, embeddings_of
from es2.attacks.directions import mean_difference
from es2.attacks.landing import directions, in_window
from es2.attacks.planes import ReplayAttack
from es2.attacks.search import Cell, by_cell, evaluate_over_budgets
from es2.generation import Answer
from es2.probes import ProbeSet


@dataclass(frozen=True)
class AdditionSetting:
    """Where the push comes from ("mean", or the probe with strength `c`), and the window of relative depth it acts in.

    With "mean" the strength names the shuffled-label probe of the control alone.
    """

    source: str
    c: float
    window: tuple[float, float]

    @property
    def direction(self) -> str:
        """Short name of the direction."""
        return "mean" if self.source == "mean" else f"probe C={self.c:g}"

    @property
    def name(self) -> str:
        """Short name for tables."""
        low, high = self.window
        return f"{self.direction} depth {low:g}-{high:g}"

    def layers(self, probes: ProbeSet) -> list[int]:
        """The layers in the window."""
        return in_window(self.window, len(probes.norm))


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """See `es2.attacks.search.evaluate_over_budgets`."""
    search = settings["search"]
    sources = [("mean", search["c"][0])] if "mean" in search["sources"] else []
    sources += [("probe", c) for c in search["c"]] if "probe" in search["sources"] else []
    windows = [(float(low), float(high)) for low, high in search["windows"]]
    candidates = [AdditionSetting(source, c, window) for source, c in sources for window in windows]
    probes = evaluation.probes[evaluation.fitted_on]
    towards_safe, mean = -directions(probes), mean_difference(evaluation)
    units = {one.direction: mean if one.source == "mean" else towards_safe[probes.index(one.c)] for one in candidates}
    return evaluate_over_budgets(evaluation, candidates, partial(attack_cells, evaluation, units), settings, bundle)


def attack_cells(
    evaluation: Evaluation,
    units: Mapping[str, Tensor],
    prompts: pd.DataFrame,
    cells: Sequence[Cell[AdditionSetting]],
) -> tuple[list[list[Answer]], Tensor]:
    """Answers to `prompts` under every cell, all in the same batches, and the steps' norms [cells, n, L, T].

    units: unit vectors [L, d] by the direction's name.
    """
    probes = evaluation.probes[evaluation.fitted_on]
    norm = embeddings_of(evaluation, prompts).norm(dim=-1)
    which = [list(units).index(cell.setting.direction) for cell in cells]
    steps = torch.zeros(len(cells), *norm.shape, evaluation.max_new_tokens)
    for place, cell in enumerate(cells):
        layers = cell.setting.layers(probes)
        steps[place, :, layers] = cell.budget * norm[:, layers, None]
    attack = ReplayAttack(
        steps.flatten(0, 1), torch.stack(list(units.values())), torch.tensor(which).repeat_interleave(len(prompts))
    )
    answers = answer_under(evaluation, attack, prompts["prompt"].tolist() * len(cells))
    return by_cell(answers, len(cells)), steps
