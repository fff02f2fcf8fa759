"""A universal soft prompt: free vectors after every prompt, trained to bring out compliant answers (section 6).

    min over v of  - mean log p(target answer | prompt, v),   v <- clip(v - r sign(grad))

by sign descent on continuous inputs (Schwinn et al. 2024, arXiv:2402.09063), one prompt for all requests. The targets
are the beginnings of the untrained model's own answers to the attack split, for whether to comply is decided there;
where it refused, the `opening` of one that complies may stand for it (a model that refuses as shipped has no other).
The norm of each vector is bounded, in mean norms of the model's token embeddings. Which snapshot of the training is
used is chosen on validation.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from es2.attacks.base import Attacked, Evaluation
from es2.attacks.controls import controlled
from es2.attacks.search import Cell, choose
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
        return [[*before, *self.ids, *after] for before, after in map(lm.around, prompts)]


@dataclass(frozen=True)
class Descent:
    """Sign descent on a soft prompt's vectors: the length of a step in each entry, and the bound on a vector's norm."""

    rate: float
    bound: float

    @classmethod
    def of(cls, lm: LanguageModel, settings: Mapping[str, Any]) -> "Descent":
        """`rate` in mean sizes of an entry of the model's token embeddings, `bound` in their mean norms."""
        table = embedding_table(lm)
        sizes = table.abs().mean().item(), table.norm(dim=-1).mean().item()
        return cls(settings["rate"] * sizes[0], settings["bound"] * sizes[1])

    def step(self, lm: LanguageModel, attack: SoftPrompt, examples: Sequence[Example]) -> SoftPrompt:
        """The soft prompt one step likelier to bring out the examples' answers; its ids stand in their prompts."""
        vectors = attack.vectors - self.rate * _gradient(lm, attack, examples).sign()
        vectors = vectors * (self.bound / vectors.norm(dim=-1, keepdim=True)).clamp(max=1.0)
        return replace(attack, vectors=vectors)


@torch.no_grad()
def embedding_table(lm: LanguageModel) -> Tensor:
    """The embeddings [V, d] of all tokens."""
    return lm.base.get_input_embeddings()(torch.arange(lm.n_tokens, device=lm.device)).float()


def blank(lm: LanguageModel, ids: list[int]) -> SoftPrompt:
    """Where every training of a soft prompt begins: it reads as exclamation marks."""
    mark = lm.tokenizer("!", add_special_tokens=False)["input_ids"][0]
    return SoftPrompt("", ids, embedding_table(lm)[[mark] * len(ids)])


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Train on the attack split, choose the snapshot on validation, then answers to the benchmarks with it.

    Control, where the bundle has any: random vectors of the same norms. A bundle without benchmarks is a search alone.
    """

    def under(attack: SoftPrompt, texts: Sequence[str]) -> list[Answer]:
        with attack.applied(evaluation.lm):
            return evaluation.complete(attack.tokens(evaluation.lm, texts))

    def answer(prompts: pd.DataFrame, cells: Sequence[Cell[SoftPrompt]]) -> list[list[Answer]]:
        return [under(cell.setting, prompts["prompt"].tolist()) for cell in cells]

    snapshots = train_soft_prompt(evaluation, settings)
    chosen, found = choose(evaluation, snapshots, answer, settings["search"])
    if not evaluation.benchmarks:
        return Attacked([], found)
    prompts, about = evaluation.prompts(), {"fitted_on": evaluation.fitted_on, "setting": chosen.name}
    rows = evaluation.rows(prompts, under(chosen, prompts["prompt"].tolist()), **about)
    controls = bundle.get("controls") or {"random": 0, "prompts": 0}
    part = controlled(prompts, controls)
    for draw in range(controls["random"]):
        answers = under(_random(chosen, evaluation.seed + draw), part["prompt"].tolist())
        rows += evaluation.rows(part, answers, **about, control="random", draw=draw)
    return Attacked(rows, found)


def _random(attack: SoftPrompt, seed: int) -> SoftPrompt:
    """Vectors of the same norms in random directions."""
    random = torch.randn(attack.vectors.shape, generator=torch.Generator().manual_seed(seed)).to(attack.vectors)
    return replace(attack, vectors=normalize(random, dim=-1) * attack.vectors.norm(dim=-1, keepdim=True))


def train_soft_prompt(evaluation: Evaluation, settings: Mapping[str, Any]) -> list[SoftPrompt]:
    """Snapshots of the soft prompt after each number of steps in `settings["snapshots"]`, the last first.

    It is trained on the model that the attack is fitted on. settings: `vectors`, `rate` (of a step, in mean sizes of an
    embedding's entry), `bound` (in mean norms), `batch`, `target_tokens` (of an answer, null: all), `opening` (null:
    prompts that the untrained model refused are left out).
    """
    lm = evaluation.source.load()
    most = settings["target_tokens"]
    pairs = [(prompt, target[:most]) for prompt, target in _targets(evaluation, settings["opening"])]
    texts = [*evaluation.prompts()["prompt"], *evaluation.validation["prompt"], *evaluation.fit["prompt"]]
    known = [*lm.chat_tokens(texts), *(target for _, target in pairs)]
    attack = blank(lm, unused_tokens(lm, known, settings["vectors"]))
    examples = [Example(str(row), attack.tokens(lm, [prompt])[0], target) for row, (prompt, target) in enumerate(pairs)]
    descent = Descent.of(lm, settings)
    snapshots = []
    for parameter in lm.base.parameters():
        parameter.requires_grad_(False)
    random = np.random.default_rng(evaluation.seed)
    for step in range(1, max(settings["snapshots"]) + 1):
        places = random.choice(len(pairs), size=min(settings["batch"], len(pairs)), replace=False)
        attack = descent.step(lm, attack, [examples[place] for place in places])
        if step in settings["snapshots"]:
            snapshots.append(replace(attack, name=f"{len(attack.ids)} vectors, {step} steps"))
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
            f"attacks.{evaluation.attack}.opening: a soft prompt needs answers of the untrained model with which it "
            "complied to harmful prompts of an attack split; there are none. Give an opening, to aim at instead"
        )
    return pairs


def _gradient(lm: LanguageModel, attack: SoftPrompt, examples: Sequence[Example]) -> Tensor:
    """Gradient [m, d] by the vectors of the answers' mean cross-entropy."""
    vectors = attack.vectors.detach().requires_grad_(True)
    with torch.enable_grad(), replace(attack, vectors=vectors).applied(lm):
        outputs = run_examples(lm, examples)
        loss = cross_entropy(lm.logits(outputs.final).float(), outputs.targets)
        (gradient,) = torch.autograd.grad(loss, vectors)
    return gradient


def unused_tokens(lm: LanguageModel, sequences: Iterable[Sequence[int]], n: int) -> list[int]:
    """The last `n` token ids that none of the token sequences has, and that end no answer; UserError if there are
    fewer."""
    used = {token for ids in sequences for token in ids} | lm.end_tokens()
    free = [token for token in range(lm.n_tokens - 1, -1, -1) if token not in used]
    if len(free) < n:
        raise UserError(
            f"soft_prompt.vectors: {n} vectors stand in the place of as many tokens that no prompt or answer has; the "
            f"vocabulary has {len(free)} of them, so ask for fewer vectors"
        )
    return free[:n]
