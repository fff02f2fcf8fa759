"""A universal soft prompt: free vectors after every prompt, trained to bring out compliant answers (section 6).

    min over v of  - mean log p(target answer | prompt, v),   v <- clip(v - r sign(grad))

by sign descent on continuous inputs (Schwinn et al. 2024, arXiv:2402.09063), one prompt for all requests. The targets
are the untrained model's own answers to the attack split; where it refused, the `opening` of one that complies may
stand for it (a model that refuses as shipped has no other). The norm of each vector is bounded, in mean norms of the
model's token embeddings. Which snapshot of the training is used is chosen on validation.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from es2.attacks.base import Attacked, Evaluation
from es2.attacks.search import FITTED_ON, Cell, choose
from es2.errors import UserError
from es2.examples import Example, run_examples
from es2.generation import Answer
from es2.models import LanguageModel


@dataclass(frozen=True)
class SoftPrompt:
    """Vectors [m, d] that stand for the token ids `ids` [m], which no prompt has."""

    name: str
    ids: list[int]
    vectors: Tensor

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[None]:
        """Read the vectors wherever the ids stand in a prompt; ids that the model writes itself mean what they mean."""
        place = torch.full((lm.n_tokens,), -1, device=lm.device)
        place[torch.tensor(self.ids, device=lm.device)] = torch.arange(len(self.ids), device=lm.device)

        def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if lm.cursor is not None and lm.cursor.step > 0:
                return None
            which = place[inputs[0]]
            changed = output.clone()
            changed[which >= 0] = self.vectors[which[which >= 0]].to(output.dtype)
            return changed

        handle = lm.base.get_input_embeddings().register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def tokens(self, lm: LanguageModel, prompts: Sequence[str]) -> list[list[int]]:
        """The prompts in the chat template with the ids after each."""
        found = []
        for prompt in prompts:
            text = lm.chat_text(prompt)
            end = text.rfind(prompt) + len(prompt)
            before, after = lm.tokenizer([text[:end], text[end:]], add_special_tokens=False)["input_ids"]
            found.append([*before, *self.ids, *after])
        return found


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Train on the attack split, choose the snapshot on validation, then answers to the benchmarks with it."""

    def under(attack: SoftPrompt, texts: Sequence[str]) -> list[Answer]:
        with attack.applied(evaluation.lm):
            return evaluation.complete(attack.tokens(evaluation.lm, texts))

    def answer(prompts: pd.DataFrame, cells: Sequence[Cell[SoftPrompt]]) -> list[list[Answer]]:
        return [under(cell.setting, prompts["prompt"].tolist()) for cell in cells]

    snapshots = train_soft_prompt(evaluation, settings)
    chosen, found = choose(evaluation, snapshots, answer, settings["search"])
    prompts = evaluation.prompts()
    answers = under(chosen, prompts["prompt"].tolist())
    return Attacked(evaluation.rows(prompts, answers, fitted_on=FITTED_ON, setting=chosen.name), found)


def train_soft_prompt(evaluation: Evaluation, settings: Mapping[str, Any]) -> list[SoftPrompt]:
    """Snapshots of the soft prompt after each number of steps in `settings["snapshots"]`, the last first.

    settings: `vectors`, `rate` (of a step, in mean sizes of an embedding's entry), `bound` (in mean norms), `batch`,
    `opening` (null: prompts that the untrained model refused are left out).
    """
    lm = evaluation.lm
    pairs = _targets(evaluation, settings["opening"])
    ids = unused_tokens(lm, evaluation, settings["vectors"])
    with torch.no_grad():
        table = lm.base.get_input_embeddings()(torch.arange(lm.n_tokens, device=lm.device)).float()
    rate, bound = settings["rate"] * table.abs().mean(), settings["bound"] * table.norm(dim=-1).mean()
    start = lm.tokenizer("!", add_special_tokens=False)["input_ids"][0]
    vectors = table[torch.tensor([start] * len(ids), device=lm.device)].clone()
    snapshots = []
    for parameter in lm.base.parameters():
        parameter.requires_grad_(False)
    random = np.random.default_rng(evaluation.seed)
    for step in range(1, max(settings["snapshots"]) + 1):
        places = random.choice(len(pairs), size=min(settings["batch"], len(pairs)), replace=False)
        grad = _gradient(lm, SoftPrompt("", ids, vectors), [pairs[place] for place in places])
        vectors = vectors - rate * grad.sign()
        vectors = vectors * (bound / vectors.norm(dim=-1, keepdim=True)).clamp(max=1.0)
        if step in settings["snapshots"]:
            snapshots.append(SoftPrompt(f"{len(ids)} vectors, {step} steps", ids, vectors))
    return snapshots[::-1]


def _targets(evaluation: Evaluation, opening: str | None) -> list[tuple[str, list[int]]]:
    """The harmful prompts of the attack split, each with the tokens that the soft prompt is to bring out."""
    known = dict(evaluation.targets)
    if opening is not None:
        tokens = evaluation.lm.tokenizer(opening, add_special_tokens=False)["input_ids"]
        known = dict.fromkeys(evaluation.fit.loc[evaluation.fit["label"] == "harmful", "prompt_id"], tokens) | known
    pairs = [(row.prompt, known[row.prompt_id]) for row in evaluation.fit.itertuples() if row.prompt_id in known]
    if not pairs:
        raise UserError(
            "attacks: a soft prompt needs answers of the untrained model with which it complied to harmful prompts of "
            "an attack split; there are none. Give the attack an `opening`, to aim at instead"
        )
    return pairs


def _gradient(lm: LanguageModel, attack: SoftPrompt, pairs: Sequence[tuple[str, list[int]]]) -> Tensor:
    """Gradient [m, d] of the targets' mean cross-entropy by the vectors."""
    vectors = attack.vectors.detach().requires_grad_(True)
    attack = SoftPrompt(attack.name, attack.ids, vectors)
    tokens = attack.tokens(lm, [prompt for prompt, _ in pairs])
    examples = [
        Example(str(row), ids, target) for row, (ids, (_, target)) in enumerate(zip(tokens, pairs, strict=True))
    ]
    with torch.enable_grad(), attack.applied(lm):
        outputs = run_examples(lm, examples)
        loss = cross_entropy(lm.logits(outputs.final).float(), outputs.targets)
        (gradient,) = torch.autograd.grad(loss, vectors)
    return gradient


def unused_tokens(lm: LanguageModel, evaluation: Evaluation, n: int) -> list[int]:
    """The last `n` token ids that no prompt of the evaluation has."""
    texts = [*evaluation.prompts()["prompt"], *evaluation.validation["prompt"], *evaluation.fit["prompt"]]
    used = {token for ids in lm.chat_tokens(texts) for token in ids} | lm.end_tokens()
    return [token for token in range(lm.n_tokens - 1, -1, -1) if token not in used][:n]
