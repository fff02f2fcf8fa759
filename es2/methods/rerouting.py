"""Methods that train the states of all tokens: circuit breakers, triplet separation, and an RMU-like control.

A harmful example is a prompt with the untrained model's compliant answer, so that the states of complying are changed;
a share `rerouting.refusals` of them has the parent's own refusal instead, which is retained as safe answers are. The
states compared are those at the layers of `separation.layers`, at all tokens after the template's head.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from es2.batching import even_parts
from es2.errors import UserError
from es2.examples import Example, Outputs, run_examples
from es2.losses.rerouting import random_target_loss, rerouting_loss, retain_loss, schedule
from es2.losses.triplet import triplet_losses
from es2.methods.base import Loss, Method, TrainingData, kl_to_parent
from es2.models import LanguageModel

CHANGE, RETAIN = "change", "retain"
PART = 16  # examples in one pass that caches the parent's states


class CircuitBreakers(Method):
    """L = c_s L_s + c_r L_r, with the paper's schedule in optimizer steps; see es2.losses.rerouting."""

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        self.data = data
        self.layers = list(data.layers)
        self.settings = settings
        self.compliant = sorted(data.compliant)
        if not self.compliant:
            raise UserError(
                "training: the untrained model complied with no harmful prompt of the defence split, so that there is "
                "nothing to reroute; choose another method"
            )
        self.refusals = float(settings["rerouting"]["refusals"])
        self.coefficients = schedule(settings["rerouting"]["alpha"], 0, 1)
        self.parent: dict[tuple[str, str], dict[int, Tensor]] = {}

    def example(self, prompt_id: str, draw: int) -> Example:
        """A safe prompt with the parent's answer; a harmful one with a compliant answer or with the parent's refusal.

        A harmful prompt that the untrained model refused gives way to one that it answered.
        """
        reference = self.data.references[prompt_id]
        refused = reference.verdict == "refusal" and (draw % 1000) / 1000 < self.refusals
        if prompt_id not in self.data.harmful or refused:
            return Example(prompt_id, reference.prompt_tokens, reference.answer_tokens, reference.states, RETAIN)
        if prompt_id not in self.data.compliant:
            prompt_id = self.compliant[draw % len(self.compliant)]
        tokens = self.data.references[prompt_id].prompt_tokens
        return Example(prompt_id, tokens, self.data.compliant[prompt_id], role=CHANGE)

    @torch.no_grad()
    def prepare(self, lm: LanguageModel, drawn: Sequence[tuple[str, int]]) -> None:
        """Cache the parent's states of every example that will be drawn."""
        wanted = {_key(one): one for one in (self.example(*pair) for pair in drawn)}
        examples = sorted(wanted.values(), key=lambda one: len(one.prompt_tokens) + len(one.answer_tokens))
        for part in even_parts(examples, PART):
            outputs = run_examples(lm, part, self.layers, whole=True)
            for one, states in zip(part, outputs.whole, strict=True):
                self.parent[_key(one)] = {layer: value.float().cpu() for layer, value in states.items()}

    def begin(self, lm: LanguageModel, step: int, steps: int) -> None:
        """Set the two coefficients of this optimizer step."""
        self.coefficients = schedule(self.settings["rerouting"]["alpha"], step, steps)

    def run(self, lm: LanguageModel, examples: Sequence[Example]) -> Outputs:
        """One pass that keeps the states of all tokens."""
        return run_examples(lm, examples, self.layers, whole=True)

    def loss(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Loss:
        """See the class."""
        change, retain = [], []
        for layer in self.layers:
            changed, retained = (self.states(examples, outputs, layer, role) for role in (CHANGE, RETAIN))
            change.append(self.change(*changed, layer) if changed else torch.zeros((), device=lm.device))
            retain.append(retain_loss(*retained) if retained else torch.zeros((), device=lm.device))
        moved, kept = torch.stack(change).mean(), torch.stack(retain).mean()
        total = self.coefficients[0] * moved + self.coefficients[1] * self.settings["rerouting"]["retain"] * kept
        return Loss(total, {"rerouting": moved.item(), "retain": kept.item()})

    def change(self, states: Tensor, parent: Tensor, layer: int) -> Tensor:
        """The loss on the states [n, d] of harmful examples at one layer."""
        return rerouting_loss(states, parent)

    def states(
        self, examples: Sequence[Example], outputs: Outputs, layer: int, role: str
    ) -> tuple[Tensor, Tensor] | None:
        """States [n, d] of all tokens of the examples with a role, and the parent's; None where there is no example:
        by chance, every harmful prompt of a small batch may stand there with the parent's refusal.

        How long the head is that a batch shares depends on the batch: what both have is compared, from the end.
        """
        own, parent = [], []
        for example, states in zip(examples, outputs.whole, strict=True):
            if example.role == role:
                cached = self.parent[_key(example)][layer]
                n = min(len(cached), len(states[layer]))
                own.append(states[layer][-n:].float())
                parent.append(cached[-n:])
        return (torch.cat(own), torch.cat(parent).to(own[0].device)) if own else None


class RandomTarget(CircuitBreakers):
    """RMU-like control: harmful states are driven to one random direction, the others retained.

    The direction of a layer follows the first number that the data drew: the training's seed fixes it.
    """

    seed = 0

    def prepare(self, lm: LanguageModel, drawn: Sequence[tuple[str, int]]) -> None:
        """See the class."""
        super().prepare(lm, drawn)
        self.seed = drawn[0][1]

    def change(self, states: Tensor, parent: Tensor, layer: int) -> Tensor:
        """See es2.losses.rerouting.random_target_loss."""
        unit = torch.randn(states.shape[1], generator=torch.Generator().manual_seed(self.seed + layer)).to(
            states.device
        )
        return random_target_loss(states, parent, unit / unit.norm(), self.settings["rerouting"]["scale"])


class Triplet(CircuitBreakers):
    """L = w_safe L_safe + w_harmful L_harmful + lambda KL(safe answers and refusals); see es2.losses.triplet."""

    def loss(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Loss:
        """See the class."""
        settings = self.settings["triplet"]
        margins = (settings["margin_safe"], settings["margin_harmful"])
        both = [self.at_layer(examples, outputs, layer, margins, lm.device) for layer in self.layers]
        on_safe, on_harmful = (torch.stack(part).mean() for part in zip(*both, strict=True))
        kl = self.kl(lm, examples, outputs)
        total = settings["safe"] * on_safe + settings["harmful"] * on_harmful + self.settings["kl"]["weight"] * kl
        return Loss(total, {"triplet_safe": on_safe.item(), "triplet_harmful": on_harmful.item(), "kl": kl.item()})

    def at_layer(
        self,
        examples: Sequence[Example],
        outputs: Outputs,
        layer: int,
        margins: tuple[float, float],
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """Both losses at one layer; 0 in a batch that lacks one of the classes, which a triplet needs."""
        kept, changed = (self.states(examples, outputs, layer, role) for role in (RETAIN, CHANGE))
        if kept is None or changed is None:
            return torch.zeros((), device=device), torch.zeros((), device=device)
        return triplet_losses(*kept, *changed, margins)

    def kl(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Tensor:
        """Mean KL to the parent over the answer tokens of the retained examples."""
        kept = torch.tensor([example.states is not None for example in examples])[outputs.rows]
        return kl_to_parent(lm, outputs.final[kept.to(lm.device)], examples).mean()


def _key(example: Example) -> tuple[str, str]:
    return example.prompt_id, example.role
