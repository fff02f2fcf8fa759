"""What every training method is to the one training loop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from es2.embeddings import Embeddings
from es2.examples import Example, Outputs, run_examples
from es2.losses.through_head import kl_through_head
from es2.models import LanguageModel
from es2.reference import Reference


@dataclass(frozen=True)
class TrainingData:
    """What a method may learn from: defence prompts and the parent's answers, states and embeddings to them.

    harmful: ids of harmful prompts; the others in `references` are safe. `refusals` are the refusal texts' tokens.
    compliant: {prompt id: tokens} of the answers to harmful prompts with which the untrained model complied.
    """

    harmful: frozenset[str]
    references: Mapping[str, Reference]
    refusals: Sequence[list[int]]
    embeddings: Embeddings
    layers: Sequence[int]
    compliant: Mapping[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Loss:
    """A loss to descend on and its parts as numbers, named as the columns of training.csv."""

    total: Tensor
    parts: dict[str, float] = field(default_factory=dict)


class Method(ABC):
    """One method: which example it makes of a prompt, which layers it watches, and its loss."""

    layers: Sequence[int] = ()

    @abstractmethod
    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None: ...

    def prepare(self, lm: LanguageModel, drawn: Sequence[tuple[str, int]]) -> None:  # noqa: B027 (nothing by default)
        """Called once before training, when the model is still the parent, with all that will be drawn (see
        `es2.training.draw_batch`); also before a checkpoint is taken up."""

    def begin(self, lm: LanguageModel, step: int, steps: int) -> None:  # noqa: B027 (nothing by default)
        """Called before optimizer step number `step` (from 0) of `steps`."""

    @abstractmethod
    def example(self, prompt_id: str, draw: int) -> Example:
        """The example for a prompt; `draw` is a number that is random but fixed by seed and step."""

    def run(self, lm: LanguageModel, examples: Sequence[Example]) -> Outputs:
        """The forward pass of one batch."""
        return run_examples(lm, examples, self.layers)

    @abstractmethod
    def loss(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Loss:
        """The loss of one batch."""


def kl_to_parent(lm: LanguageModel, final: Tensor, examples: Sequence[Example]) -> Tensor:
    """KL to the parent in nats at each answer token [t] of the examples that have cached states, in order, from the
    post-norm final states [t, d] there."""
    return kl_through_head(lm, final, parent_states(examples))


def parent_states(examples: Sequence[Example]) -> Tensor:
    """The parent's cached states [t, d] of the examples that have some, in order."""
    return torch.cat([example.states for example in examples if example.states is not None])
