"""Refusal-direction ablation: one direction projected out of all that the model writes (Arditi et al., section 6).

    x' = x - u (u.x) at every token, for the embedding, every attention and every MLP output

u is the mean difference at one layer and one of the tokens that the chat template puts after a prompt, chosen on
validation. In arXiv:2406.11717 only directions count whose ablation leaves harmless prompts' first token alone (KL
below a bound). That bound is an option: it would forbid the layers that a defence has pushed apart, and an attacker who
is judged by fluent compliance has no need of it. Without a budget of its own; what it spent is reported.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from es2.attacks.base import Attacked, Evaluation, answer_under, embeddings_of
from es2.attacks.controls import controlled
from es2.attacks.directions import mean_differences
from es2.attacks.landing import in_window
from es2.attacks.planes import random_directions
from es2.attacks.search import Cell, by_cell, choose
from es2.batching import shared_head
from es2.errors import UserError
from es2.generation import Answer
from es2.losses.divergence import kl_divergence
from es2.models import LanguageModel
from es2.packing import lay_out

READS_MIDDLE = ("pre_feedforward_layernorm", "post_attention_layernorm")
"""The norm that reads the residual stream between a block's attention and its MLP, by family; the first there is."""


@dataclass(frozen=True)
class AblationSetting:
    """The layer whose mean difference is projected out, and how many tokens before the prompt's last it is read."""

    layer: int
    back: int = 0

    @property
    def name(self) -> str:
        """Short name for tables; `es2.tables.directions` reads it."""
        return f"direction{f' {self.back} earlier' if self.back else ''} of layer {self.layer}"


@dataclass(frozen=True)
class ProjectionAttack:
    """Project the unit vector `direction` out of the residual stream wherever it is read, at every token.

    That equals projecting it out of every write: what the stream still carries along u is never read. It is [d], or
    [n, d] with one for each of the caller's rows, which the cursor names in every pass (`generate`'s `groups`).

    With `instead`, another unit vector r, the control of equal norm: as much as was written along u is taken away along
    r, so that a read of the stream is off by a step as long as the attack's.
    """

    direction: Tensor
    instead: Tensor | None = None

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[None]:
        """Attack the model within the block."""
        edit = self._edit(lm)

        def embedded(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            edit.begin()
            return edit.write(output)

        def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (edit.read(inputs[0]), *inputs[1:])

        def after(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            return (edit.write(output[0]), *output[1:]) if isinstance(output, tuple) else edit.write(output)

        with ExitStack() as stack:
            stack.callback(lm.base.get_input_embeddings().register_forward_hook(embedded).remove)
            for block in lm.blocks:
                stack.callback(_reads_middle(block).register_forward_pre_hook(before).remove)
                stack.callback(block.register_forward_hook(after).remove)
            yield

    def _edit(self, lm: LanguageModel) -> "_Projection | _Projections | _Replay":
        if self.instead is not None:
            return _Replay(self.direction, self.instead)
        return _Projection(self.direction) if self.direction.ndim == 1 else _Projections(self.direction, lm)


class _Projection:
    """x - u (u.x), wherever the stream is read or written."""

    def __init__(self, unit: Tensor) -> None:
        self.unit = unit

    def begin(self) -> None:
        """A forward pass begins."""

    def read(self, states: Tensor) -> Tensor:
        """What a block reads of the stream `states` [..., d]."""
        unit = self.unit.to(states.device, states.dtype)
        return states - (states @ unit)[..., None] * unit

    write = read


class _Projections:
    """The same with a unit vector for each row."""

    def __init__(self, units: Tensor, lm: LanguageModel) -> None:
        self.units, self.lm = units, lm

    def begin(self) -> None:
        """A forward pass begins, over the rows at the cursor."""
        assert self.lm.cursor is not None
        self.unit = self.units[self.lm.cursor.rows, None].to(self.lm.device, self.lm.base.dtype)

    def read(self, states: Tensor) -> Tensor:
        """What a block reads of the stream `states` [b, t, d]."""
        return torch.baddbmm(states, states @ self.unit.transpose(1, 2), self.unit, alpha=-1)

    write = read


class _Replay:
    """x - r (u.w), with w what was written to the stream since it was edited last.

    The stream keeps its part along u, so what was paid for already is remembered from edit to edit.
    """

    def __init__(self, unit: Tensor, instead: Tensor) -> None:
        self.unit, self.instead = unit, instead
        self.paid: Tensor | float = 0.0

    def begin(self) -> None:
        """A forward pass begins: nothing is paid for."""
        self.paid = 0.0

    def read(self, states: Tensor) -> Tensor:
        """What a block reads of the stream `states` [..., d], which itself stays."""
        unit, instead = (vector.to(states.device, states.dtype) for vector in (self.unit, self.instead))
        return states - (states @ unit - self.paid)[..., None] * instead

    def write(self, states: Tensor) -> Tensor:
        """What the stream carries on."""
        edited = self.read(states)
        self.paid = edited @ self.unit.to(states.device, states.dtype)
        return edited


def _reads_middle(block: nn.Module) -> nn.Module:
    for name in READS_MIDDLE:
        if isinstance(module := getattr(block, name, None), nn.Module):
            return module
    raise UserError(
        f"attacks: ablation does not know where {type(block).__name__} reads its residual stream after the attention; "
        "this architecture needs an entry in es2/attacks/ablation.py"
    )


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Search layer and token on validation, then answers to the benchmarks without the direction found there.

    Controls, with steps as long: along random directions, and along the mean difference at the same place under
    shuffled labels. A bundle without benchmarks is a search alone.
    """
    search = settings["search"]
    units = fitted(evaluation, search["positions"])
    layers = in_window(search["window"], evaluation.lm.n_layers)
    candidates = [setting for setting in units if setting.layer in layers]
    if not candidates:
        raise UserError(
            f"attacks.{evaluation.attack}.search.window: no layer of {evaluation.lm.n_layers} lies in "
            f"{search['window']}; widen it"
        )
    if search["harmless_kl"] is not None:
        candidates = harmless(evaluation, {one: units[one] for one in candidates}, search["harmless_kl"])

    def answer(prompts: pd.DataFrame, cells: Sequence[Cell[AblationSetting]]) -> list[list[Answer]]:
        directions = [units[cell.setting] for cell in cells for _ in range(len(prompts))]
        groups = [row // len(prompts) for row in range(len(directions))]
        with ProjectionAttack(torch.stack(directions)).applied(evaluation.lm):
            answers = evaluation.answer(prompts["prompt"].tolist() * len(cells), groups=groups)
        return by_cell(answers, len(cells))

    chosen, found = choose(evaluation, candidates, answer, search)
    if not evaluation.benchmarks:
        return Attacked([], found)
    prompts = evaluation.prompts()
    unit, about = units[chosen], {"fitted_on": evaluation.fitted_on, "setting": chosen.name}
    rows = _rows(evaluation, prompts, unit, None, **about)
    part = controlled(prompts, bundle["controls"])
    for draw in range(bundle["controls"]["random"]):
        random = random_directions(1, 1, evaluation.lm.width, evaluation.seed + draw)[0, 0]
        rows += _rows(evaluation, part, unit, random, **about, control="random", draw=draw)
    for draw in range(bundle["controls"]["shuffled"]):
        shuffled = mean_differences(evaluation, chosen.back + 1, evaluation.seed + draw)[chosen.back, chosen.layer]
        rows += _rows(evaluation, part, unit, shuffled, **about, control="shuffled", draw=draw)
    return Attacked(rows, found)


def fitted(evaluation: Evaluation, positions: int | None) -> dict[AblationSetting, Tensor]:
    """The directions [d] of every layer at the last `positions` of the tokens that the chat template puts after a
    prompt, None for all; at one at least. The last token's come first."""
    units = mean_differences(evaluation, evaluation.lm.n_read(positions))
    return {AblationSetting(layer, back): unit for back, some in enumerate(units) for layer, unit in enumerate(some)}


def _rows(
    evaluation: Evaluation, prompts: pd.DataFrame, unit: Tensor, instead: Tensor | None, **about: Any
) -> list[dict[str, Any]]:
    answers = answer_under(evaluation, ProjectionAttack(unit, instead), prompts["prompt"].tolist())
    return evaluation.rows(prompts, answers, **about, realised=realised_budget(evaluation, prompts, unit))


def realised_budget(evaluation: Evaluation, prompts: pd.DataFrame, unit: Tensor) -> list[float]:
    """RMS over layers of |u.e| / |e| on the unedited embeddings, for each prompt: what the ablation spends."""
    embeddings = embeddings_of(evaluation, prompts)
    return ((embeddings @ unit) / embeddings.norm(dim=-1)).square().mean(dim=1).sqrt().tolist()


def harmless(evaluation: Evaluation, units: Mapping[AblationSetting, Tensor], bound: float) -> list[AblationSetting]:
    """Of directions [d] those whose ablation moves harmless prompts' first token by at most `bound` nats; if there are
    none, the one that moves it least."""
    change = {setting: first_token_kl(evaluation, ProjectionAttack(unit)) for setting, unit in units.items()}
    return [one for one, moved in change.items() if moved <= bound] or [min(change, key=change.__getitem__)]


@torch.no_grad()
def first_token_kl(evaluation: Evaluation, attack: ProjectionAttack, most: int = 32) -> float:
    """Mean KL(attacked || as it is) in nats at the first answer token, over at most `most` harmless prompts."""
    lm = evaluation.lm
    tokens = lm.chat_tokens(evaluation.harmless["prompt"].tolist()[:most])
    n_head = shared_head(tokens)
    layout = lay_out(lm, tokens, n_head)
    last = layout.find(torch.arange(len(tokens)), torch.tensor([len(ids) - n_head - 1 for ids in tokens]))
    plain = lm.logits(layout.run(lm)[last])
    with attack.applied(lm):
        attacked = lm.logits(layout.run(lm)[last])
    return kl_divergence(attacked, plain).mean().item()
