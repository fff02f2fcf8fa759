"""ES2 at another position: the mean over a prompt's tokens in place of its last one (an ablation of section 2).

The tokens are those after the head that the prompts of a batch share (the template's beginning), with the template's
end. Everything else is `es2.methods.separation`; attacks and probes stay at the last token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from es2.batching import even_parts
from es2.examples import Example, Outputs, run_examples
from es2.methods.base import TrainingData
from es2.methods.separation import Separation
from es2.models import LanguageModel

PART = 16  # prompts in one pass that reads the parent's means


class MeanPosition(Separation):
    """See the module. The parent's means are read before training, when the model still is the parent."""

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        super().__init__(settings, data)
        self.parent_means: dict[str, Tensor] = {}

    @torch.no_grad()
    def prepare(self, lm: LanguageModel, drawn: Sequence[tuple[str, int]]) -> None:
        """Read the parent's mean [K, d] of every defence prompt, and its distance between the classes."""
        super().prepare(lm, drawn)
        references = sorted(self.data.references.items(), key=lambda pair: len(pair[1].prompt_tokens))
        examples = [Example(key, one.prompt_tokens, one.answer_tokens[:1]) for key, one in references]
        for part in even_parts(examples, PART):
            residual = self.run(lm, part).residual
            means = torch.stack([residual[layer] for layer in self.layers], dim=1).float().cpu()
            self.parent_means |= {one.prompt_id: mean for one, mean in zip(part, means, strict=True)}
        harmful = torch.tensor([one.prompt_id in self.data.harmful for one in examples])
        every = torch.stack([self.parent_means[one.prompt_id] for one in examples], dim=1)
        self.parent_distance = self.distance(every[:, harmful], every[:, ~harmful])

    def run(self, lm: LanguageModel, examples: Sequence[Example]) -> Outputs:
        """One pass; `residual` holds the means over the prompts' own tokens."""
        outputs = run_examples(lm, examples, self.layers, whole=True)
        own = [
            {layer: states[layer][: len(states[layer]) - len(one.answer_tokens) + 1].mean(dim=0) for layer in states}
            for one, states in zip(examples, outputs.whole, strict=True)
        ]
        means = {layer: torch.stack([states[layer] for states in own]) for layer in self.layers}
        return replace(outputs, residual=means, whole=[])

    def _parent_residual(self, examples: Sequence[Example], chosen: Tensor) -> Tensor:
        """The parent's means [K, m, d] of the chosen examples."""
        taken = [one for one, take in zip(examples, chosen.tolist(), strict=True) if take]
        return torch.stack([self.parent_means[one.prompt_id] for one in taken], dim=1)
