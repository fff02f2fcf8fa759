"""Asking again: several sampled answers to each request, of which the attacker keeps one that complies (section 6).

Greedy answers hide what a model says now and then. A request counts as refused only where every sample was; beside it
stands what a single sample brings (`single`, listed as a control). Samples are drawn from the whole softmax at a
temperature.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from es2.attacks.base import Attacked, Evaluation
from es2.generation import Answer, generate
from es2.models import LanguageModel
from es2.names import SELF, SINGLE

PREFERRED = ("compliance", "degenerate", "refusal")  # which of several answers the attacker keeps


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """`samples` answers at `temperature` to every benchmark prompt, and of each prompt's the one kept."""
    prompts, samples = evaluation.prompts(), settings["samples"]
    drawn = sample(
        evaluation.lm,
        evaluation.lm.chat_tokens(prompts["prompt"].tolist()),
        samples,
        settings["temperature"],
        evaluation.max_new_tokens,
        evaluation.batch_rows,
        evaluation.seed,
        evaluation.progress,
    )
    kept = [_kept(evaluation, text, said) for text, said in zip(prompts["prompt"], drawn, strict=True)]
    name = f"{samples} answers at temperature {settings['temperature']:g}"
    rows = evaluation.rows(prompts, kept, fitted_on=SELF, setting=name)
    for draw in range(samples):
        about = {"fitted_on": SELF, "setting": name, "control": SINGLE, "draw": draw}
        rows += evaluation.rows(prompts, [said[draw] for said in drawn], **about)
    return Attacked(rows)


def _kept(evaluation: Evaluation, prompt: str, said: Sequence[Answer]) -> Answer:
    """The first answer of the best verdict for the attacker."""
    verdicts = [evaluation.judge(prompt, answer.text) for answer in said]
    return said[min(range(len(said)), key=lambda place: PREFERRED.index(verdicts[place]))]


@dataclass(frozen=True)
class Draws:
    """One number in [0, 1) for each row and token of its answer (`uniform` [n, T], float64), so that what is drawn does
    not depend on the batches; and the temperature of the softmax."""

    uniform: Tensor
    temperature: float

    def pick(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """The first tokens [b] at which the distribution function passes the rows' numbers; see es2.generation.Pick."""
        cumulative = torch.softmax(logits.float() / self.temperature, dim=-1).double().cumsum(dim=-1)
        sought = self.uniform[rows, step].to(logits.device) * cumulative[:, -1]
        return torch.searchsorted(cumulative, sought[:, None], right=True).squeeze(1)


def sample(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    samples: int,
    temperature: float,
    max_new_tokens: int,
    batch_rows: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[list[Answer]]:
    """`samples` answers to each token sequence, in their order; the same for the same seed."""
    repeated = [sequence for sequence in sequences for _ in range(samples)]
    generator = torch.Generator().manual_seed(seed)
    draws = Draws(torch.rand(len(repeated), max_new_tokens, generator=generator, dtype=torch.float64), temperature)
    said = generate(lm, repeated, max_new_tokens, batch_rows, progress, pick=draws.pick)
    return [said[start : start + samples] for start in range(0, len(said), samples)]
