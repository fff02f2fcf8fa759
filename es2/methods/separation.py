"""ES2 and its control `hold`: separation of harmful and safe embeddings, with KL and hold terms (method.md section 4).

    L = w L_sep + lambda KL(safe prompts) + mu KL(harmful prompts, on the parent's refusals) + nu drift(safe embeddings)

`hold` is the same with w = 0: the same data, steps and hold terms, so that what differs is the separation alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from es2.examples import Example, Outputs
from es2.losses.divergence import relative_drift
from es2.losses.separation import DISTANCES, FORMS
from es2.methods.base import Loss, Method, TrainingData, kl_to_parent
from es2.models import LanguageModel


class Separation(Method):
    """The ES2 loss on a batch of harmful and safe prompts with the parent's own answers."""

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        separation = settings["separation"]
        self.data = data
        self.layers: Sequence[int] = list(data.layers)
        self.weight = float(separation["weight"])
        self.form, self.distance = FORMS[separation["form"]], DISTANCES[separation["distance"]]
        self.target = float(separation["target"])
        self.kl_weight = float(settings["kl"]["weight"])
        self.refusals_weight = float(settings["hold"]["refusals"])
        self.drift_weight = float(settings["hold"]["safe_drift"])
        self.parent_distance = self._parent_distance()

    def example(self, prompt_id: str, draw: int) -> Example:
        """A prompt with the parent's own answer to it."""
        return self.data.references[prompt_id].example()

    def loss(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Loss:
        """See the module."""
        harmful = torch.tensor([example.prompt_id in self.data.harmful for example in examples])
        residual = torch.stack([outputs.residual[layer] for layer in self.layers]).float()
        distance = self.distance(residual[:, harmful], residual[:, ~harmful])
        parent = self.parent_distance.to(distance.device)
        separation = self.form(distance, parent, self.target)
        kl_safe, kl_refusals = self.divergences(lm, examples, outputs, harmful)
        drift = relative_drift(residual[:, ~harmful], self._parent_residual(examples, ~harmful).to(residual.device))
        total = (
            self.weight * separation
            + self.kl_weight * kl_safe
            + self.refusals_weight * kl_refusals
            + self.drift_weight * drift
        )
        parts = {
            "separation": separation.item(),
            "kl": kl_safe.item(),
            "kl_refusals": kl_refusals.item(),
            "drift": drift.item(),
            "distance_ratio": (distance / parent).mean().item(),
        }
        return Loss(total, parts)

    def divergences(
        self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs, harmful: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean KL to the parent over answer tokens: of safe prompts, and of harmful prompts that the parent refused."""
        refused = torch.tensor([self.data.references[one.prompt_id].verdict == "refusal" for one in examples])
        kl = kl_to_parent(lm, outputs.final, examples)
        safe_tokens = (~harmful)[outputs.rows].to(kl.device)
        refusal_tokens = (harmful & refused)[outputs.rows].to(kl.device)
        held = kl[refusal_tokens].mean() if refusal_tokens.any() else kl.new_zeros(())
        return kl[safe_tokens].mean(), held

    def _parent_residual(self, examples: Sequence[Example], chosen: Tensor) -> Tensor:
        """The parent's embeddings [K, m, d] of the chosen examples at the watched layers."""
        ids = [example.prompt_id for example, take in zip(examples, chosen.tolist(), strict=True) if take]
        return self.data.embeddings.of(ids)[:, list(self.layers)].transpose(0, 1)

    def _parent_distance(self) -> Tensor:
        """The parent's own distance [K] between all harmful and all safe defence prompts."""
        ids = list(self.data.references)
        harmful = torch.tensor([prompt_id in self.data.harmful for prompt_id in ids])
        residual = self.data.embeddings.of(ids)[:, list(self.layers)].transpose(0, 1)
        return self.distance(residual[:, harmful], residual[:, ~harmful])


class Hold(Separation):
    """The control: the separation's weight is 0 whatever the settings say; everything else is ES2's."""

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        super().__init__(settings, data)
        self.weight = 0.0
