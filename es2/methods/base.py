"""What every training method is to the one training loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from es2.embeddings import Embeddings
from es2.examples import Example, Outputs
from es2.models import LanguageModel
from es2.reference import Reference


@dataclass(frozen=True)
class TrainingData:
    """What a method may learn from: defence prompts and the parent's answers, states and embeddings to them.

    harmful: ids of harmful prompts; the others in `references` are safe. `refusals` are the refusal texts' tokens.
    """

    harmful: frozenset[str]
    references: Mapping[str, Reference]
    refusals: Sequence[list[int]]
    embeddings: Embeddings
    layers: Sequence[int]


@dataclass(frozen=True)
class Loss:
    """A loss to descend on and its parts as numbers, named as the columns of training.csv."""

    total: Tensor
    parts: dict[str, float] = field(default_factory=dict)


class Method(Protocol):
    """One method: which example it makes of a prompt, which layers it watches, and its loss."""

    layers: Sequence[int]

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None: ...

    def example(self, prompt_id: str, draw: int) -> Example:
        """The example for a prompt; `draw` is a number that is random but fixed by seed and step."""
        ...

    def loss(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Loss:
        """The loss of one batch."""
        ...
