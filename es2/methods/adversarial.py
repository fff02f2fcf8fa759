"""Latent adversarial training: refusals and harmless answers held under an edit of the residual stream.

    L = L(es2 or hold) + a KL(parent's refusals | attacked) + b KL(parent's answers to safe prompts | attacked)
        + c KL(parent's answers to safe prompts), not attacked

The edit is the attacker's own, drawn anew for every batch (es2.methods.adversary). The terms with a, b and c may look
at an answer's first tokens alone: there it is decided whether to refuse, harmless requests included.

After latent adversarial training (Casper et al. 2024, arXiv:2403.05030; Sheshadri et al. 2024, arXiv:2407.15549) and
ReFAT (Yu et al. 2024, arXiv:2409.20089), which is `ablation` alone; `soft_prompt` after training under continuous
attacks on the input (Xhonneux et al. 2024, arXiv:2405.15589), with one prompt for all requests. With separation weight
0 it is the rival, with separation it is ES2 under attack. Harmless prompts are trained under the same edit, so that
refusing is not the answer to being edited.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from es2.examples import Example, Outputs
from es2.methods.adversary import Adversary
from es2.methods.base import Loss, TrainingData
from es2.methods.separation import Separation
from es2.models import LanguageModel


class EsAdversarial(Separation):
    """ES2's loss, and its KL terms once more under the edit; see the module."""

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        super().__init__(settings, data)
        self.terms = settings["adversarial"]
        self.adversary = Adversary(self.terms, data)

    def prepare(self, lm: LanguageModel, drawn: Sequence[tuple[str, int]]) -> None:
        """What is drawn here follows the first number that the data drew: the training's seed fixes it."""
        super().prepare(lm, drawn)
        self.adversary.seed = drawn[0][1]

    def begin(self, lm: LanguageModel, step: int, steps: int) -> None:
        """See `Adversary.begin`."""
        self.adversary.begin(lm, step)

    def loss(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Loss:
        """See the module."""
        clean = super().loss(lm, examples, outputs)
        cut = [self.cut(example) for example in examples]
        attacked = self.adversary.attacked(lm, cut)
        harmful = torch.tensor([example.prompt_id in self.data.harmful for example in examples])
        kl_safe, kl_refusals = self.divergences(lm, cut, attacked, harmful)
        total = clean.total + self.terms["refusals"] * kl_refusals + self.terms["safe"] * kl_safe
        parts = {"kl_attacked": kl_safe.item(), "kl_refusals_attacked": kl_refusals.item()}
        if self.terms["safe_unedited"] > 0:
            kl_unedited = self.divergences(lm, cut, self.beginning(outputs), harmful)[0]
            total = total + self.terms["safe_unedited"] * kl_unedited
            parts["kl_unedited"] = kl_unedited.item()
        return Loss(total, {**clean.parts, **parts})

    def cut(self, example: Example) -> Example:
        """The example with the first `answer_tokens` of its answer alone. A mean over a whole refusal hides what an
        edit does to it: the likelihood of its first token falls, and those after it follow from that."""
        most = self.terms["answer_tokens"]
        if most is None or example.states is None:
            return example
        return replace(example, answer_tokens=example.answer_tokens[:most], states=example.states[:most])

    def beginning(self, outputs: Outputs) -> Outputs:
        """What a pass over whole answers gives, at the tokens that `cut` leaves."""
        most = self.terms["answer_tokens"]
        if most is None:
            return outputs
        starts = torch.nonzero(outputs.first).squeeze(1)
        early = torch.arange(len(outputs.rows)) - starts[outputs.rows] < most
        taken = {name: getattr(outputs, name)[early] for name in ("rows", "targets", "first", "final")}
        return replace(outputs, **taken)


class Adversarial(EsAdversarial):
    """The rival: the same without separation, whatever the settings say."""

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        super().__init__(settings, data)
        self.weight = 0.0
