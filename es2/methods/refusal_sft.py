"""Refusal fine-tuning: cross-entropy on refusals to harmful prompts and on the parent's own answers to safe ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from es2.examples import Example, Outputs
from es2.losses.divergence import kl_divergence
from es2.methods.base import Loss, Method, TrainingData, parent_states
from es2.models import LanguageModel


class RefusalSFT(Method):
    """L = CE(refusals | harmful prompts) + weight * CE(own answers | safe prompts) + kl.weight * KL(safe prompts).

    Each mean is over answer tokens. The KL term keeps the safe answers' whole distribution, not their greedy path.
    """

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        self.data = data
        self.answers_weight = float(settings["sft"]["own_answers"])
        self.most = int(settings["sft"]["answer_tokens"])
        self.kl_weight = float(settings["kl"]["weight"])

    def example(self, prompt_id: str, draw: int) -> Example:
        """A harmful prompt with one of the refusal texts; a safe prompt with the parent's own answer.

        Both are cut after `sft.answer_tokens`: whether to refuse is decided early, and short answers buy more prompts.
        """
        reference = self.data.references[prompt_id]
        if prompt_id in self.data.harmful:
            refusal = self.data.refusals[draw % len(self.data.refusals)]
            return Example(prompt_id, reference.prompt_tokens, list(refusal)[: self.most])
        answer, states = reference.answer_tokens[: self.most], reference.states[: self.most]
        return Example(prompt_id, reference.prompt_tokens, answer, states)

    def loss(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Loss:
        """See the class."""
        harmful = torch.tensor([example.prompt_id in self.data.harmful for example in examples])[outputs.rows]
        harmful = harmful.to(lm.device)
        logits = lm.logits(outputs.final)
        token_loss = cross_entropy(logits.float(), outputs.targets, reduction="none")
        refusals, answers = token_loss[harmful].mean(), token_loss[~harmful].mean()
        total = refusals + self.answers_weight * answers
        parts = {"refusals": refusals.item(), "answers": answers.item()}
        if self.kl_weight > 0:
            with torch.no_grad():
                parent = lm.logits(parent_states(examples).to(logits))
            kl = kl_divergence(logits[~harmful], parent).mean()
            total, parts = total + self.kl_weight * kl, {**parts, "kl": kl.item()}
        return Loss(total, parts)
