"""Latent adversarial training: refusals and harmless answers held under an edit of the residual stream.

    L = L(es2 or hold) + a KL(parent's refusals | attacked) + b KL(parent's answers to safe prompts | attacked)
        + c KL(parent's answers to safe prompts), not attacked

The edit is the attacker's own (method.md section 6), fitted on the defence split and again as training goes on, drawn
for every batch: a landing on a plane of a probe, a fixed push along the mean difference or a probe, or a layer's mean
difference projected out, at a strength, in a layer window and with a C. These act where an answer is written. The edit
`ablation` takes a layer's mean difference out of all that is read and written, at the prompt's tokens as well; where
the config names a number of `hardest` layers, one of those whose ablation brings out compliance most, as an attacker
who searches would. `soft_prompt` puts free vectors after the prompt, trained each time that it is drawn on answers of
the untrained model with which it complied: from nothing, or where it is `carried` on from where the last draw left it,
until the attacker is fitted again. The terms with a, b and c may look at an answer's first tokens alone: there it is
decided whether to refuse, harmless requests included.

After latent adversarial training (Casper et al. 2024, arXiv:2403.05030; Sheshadri et al. 2024, arXiv:2407.15549) and
ReFAT (Yu et al. 2024, arXiv:2409.20089), which is `ablation` alone; `soft_prompt` after training under continuous
attacks on the input (Xhonneux et al. 2024, arXiv:2405.15589), with one prompt for all requests. With separation weight
0 it is the rival, with separation it is ES2 under attack. Harmless prompts are trained under the same edit, so that
refusing is not the answer to being edited.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from es2.activations import Edit
from es2.attacks.ablation import ProjectionAttack
from es2.attacks.landing import directions
from es2.attacks.soft_prompt import Descent, SoftPrompt, around_prompt, blank, unused_tokens
from es2.checkpoints import trainable
from es2.embeddings import extract_tokens
from es2.errors import UserError
from es2.examples import Example, Outputs, run_examples
from es2.methods.base import Loss, TrainingData
from es2.methods.separation import Separation
from es2.models import LanguageModel
from es2.probes import ProbeSet, fit_probe_set

LANDING, PUSH, PROJECT, ABLATION, SOFT_PROMPT = "landing", "push", "project", "ablation", "soft_prompt"
TRIED, TOKENS = 16, 8  # compliant answers on which directions are tried, and how much of one: its beginning decides


class EsAdversarial(Separation):
    """ES2's loss, and its KL terms once more under the edit; see the module."""

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        super().__init__(settings, data)
        self.attack = settings["adversarial"]
        self.seed = 0
        self.random = np.random.default_rng(self.seed)
        self.probes: ProbeSet | None = None
        self.difference = torch.empty(0)
        self.norm = torch.empty(0)
        self.hard: list[int] | None = None
        self.soft: SoftPrompt | None = None
        asks = {"hardest": self.attack["hardest"] is not None, "edits": SOFT_PROMPT in self.attack["edits"]}
        asking = [key for key, wanted in asks.items() if wanted]
        if asking and not data.compliant:
            raise UserError(
                f"training.adversarial.{asking[0]}: hardest directions and soft prompts are found by answers of the "
                "untrained model with which it complied to harmful prompts of a defence split; there are none, so "
                "leave `hardest` null and soft_prompt out of `edits`"
            )

    def prepare(self, lm: LanguageModel, drawn: Sequence[tuple[str, int]]) -> None:
        """What is drawn here follows the first number that the data drew: the training's seed fixes it."""
        super().prepare(lm, drawn)
        self.seed = drawn[0][1]

    def begin(self, lm: LanguageModel, step: int, steps: int) -> None:
        """Fit the attacker again every `refit_every` steps. What it draws is a function of seed and step alone, so that
        a resumed run is the undisturbed one (checkpoints fall on steps where it is fitted)."""
        self.random = np.random.default_rng([self.seed, step])
        if step % self.attack["refit_every"] == 0 or self.probes is None:
            self.fit(lm)

    @torch.no_grad()
    def fit(self, lm: LanguageModel) -> None:
        """Probes and mean difference of the model as it is now, on `fit_prompts` harmful and as many safe prompts of
        the defence split; probes of both halves judge each other. A soft prompt begins anew."""
        self.soft = None
        chosen: list[str] = []
        for harmful in (True, False):
            ids = [key for key in self.data.references if (key in self.data.harmful) == harmful]
            places = np.random.default_rng(self.seed).permutation(len(ids))[: self.attack["fit_prompts"]]
            chosen += [ids[place] for place in places]
        with _as_it_is(lm):
            values = extract_tokens(lm, [self.data.references[key].prompt_tokens for key in chosen])
            labels = torch.tensor([key in self.data.harmful for key in chosen])
            self.probes = fit_probe_set(values, labels, values, labels, self.attack["c"], seed=0)
            difference = values[~labels].mean(dim=0) - values[labels].mean(dim=0)
            self.difference = difference / difference.norm(dim=-1, keepdim=True)
            self.norm = values.norm(dim=-1).mean(dim=0)
            if self.attack["hardest"] is not None:
                self.hard = sorted(self.within(lm), key=self.likelihoods(lm).__getitem__)[-self.attack["hardest"] :]

    @torch.no_grad()
    def likelihoods(self, lm: LanguageModel) -> dict[int, float]:
        """{layer within `depths`: mean log-likelihood of the untrained model's compliance without its direction}."""
        examples = [self.compliant(key) for key in sorted(self.data.compliant)[:TRIED]]
        found = {}
        for layer in self.within(lm):
            with ProjectionAttack(self.difference[layer]).applied(lm):
                outputs = run_examples(lm, examples)
            found[layer] = -cross_entropy(lm.logits(outputs.final).float(), outputs.targets).item()
        return found

    def compliant(self, key: str) -> Example:
        """A harmful prompt with the beginning of the untrained model's compliance."""
        return Example(key, self.data.references[key].prompt_tokens, self.data.compliant[key][:TOKENS])

    def loss(self, lm: LanguageModel, examples: Sequence[Example], outputs: Outputs) -> Loss:
        """See the module."""
        clean = super().loss(lm, examples, outputs)
        cut = [self.cut(example) for example in examples]
        attacked = self.attacked(lm, cut)
        harmful = torch.tensor([example.prompt_id in self.data.harmful for example in examples])
        kl_safe, kl_refusals = self.divergences(lm, cut, attacked, harmful)
        total = clean.total + self.attack["refusals"] * kl_refusals + self.attack["safe"] * kl_safe
        parts = {"kl_attacked": kl_safe.item(), "kl_refusals_attacked": kl_refusals.item()}
        if self.attack["safe_unedited"] > 0:
            kl_unedited = self.divergences(lm, cut, self.beginning(outputs), harmful)[0]
            total = total + self.attack["safe_unedited"] * kl_unedited
            parts["kl_unedited"] = kl_unedited.item()
        return Loss(total, {**clean.parts, **parts})

    def cut(self, example: Example) -> Example:
        """The example with the first `answer_tokens` of its answer alone. A mean over a whole refusal hides what an
        edit does to it: the likelihood of its first token falls, and those after it follow from that."""
        most = self.attack["answer_tokens"]
        if most is None or example.states is None:
            return example
        return replace(example, answer_tokens=example.answer_tokens[:most], states=example.states[:most])

    def beginning(self, outputs: Outputs) -> Outputs:
        """What a pass over whole answers gives, at the tokens that `cut` leaves."""
        most = self.attack["answer_tokens"]
        if most is None:
            return outputs
        starts = torch.nonzero(outputs.first).squeeze(1)
        early = torch.arange(len(outputs.rows)) - starts[outputs.rows] < most
        taken = {name: getattr(outputs, name)[early] for name in ("rows", "targets", "first", "final")}
        return replace(outputs, **taken)

    def attacked(self, lm: LanguageModel, examples: Sequence[Example]) -> Outputs:
        """The forward pass over the examples under an edit that is drawn."""
        kind = self.random.choice(self.attack["edits"])
        if kind == ABLATION:
            with ProjectionAttack(self.draw_direction(lm)).applied(lm):
                return run_examples(lm, examples)
        if kind == SOFT_PROMPT:
            soft, after = self.fit_soft_prompt(lm), after_prompt(lm)
            with soft.applied(lm):
                return run_examples(lm, [_with(soft, example, after) for example in examples])
        edit, layers = self.draw(lm, kind)
        return run_examples(lm, examples, edit=edit, edited=layers)

    def fit_soft_prompt(self, lm: LanguageModel) -> SoftPrompt:
        """A soft prompt trained against the model as it is now, each step on compliance of its own."""
        settings, pool = self.attack["soft_prompt"], sorted(self.data.compliant)
        known = [tokens for one in self.data.references.values() for tokens in (one.prompt_tokens, one.answer_tokens)]
        soft = self.soft or blank(lm, unused_tokens(lm, [*known, *self.data.compliant.values()], settings["vectors"]))
        descent, after = Descent.of(lm, settings), after_prompt(lm)
        with _as_it_is(lm):
            for _ in range(settings["steps"]):
                places = self.random.choice(len(pool), size=min(settings["batch"], len(pool)), replace=False)
                soft = descent.step(lm, soft, [_with(soft, self.compliant(pool[place]), after) for place in places])
        self.soft = soft if settings["carried"] else None
        return soft

    def draw_direction(self, lm: LanguageModel) -> Tensor:
        """The mean difference [d] of a random layer within `depths`, one of the hardest if so set, of unit length."""
        layers = self.within(lm) if self.hard is None else self.hard
        return self.difference[layers[self.random.integers(len(layers))]]

    def within(self, lm: LanguageModel) -> list[int]:
        """The layers within `depths`."""
        first, last = (round(depth * (lm.n_layers - 1)) for depth in self.attack["depths"])
        return list(range(first, last + 1))

    def draw(self, lm: LanguageModel, kind: str) -> tuple[Edit, list[int]]:
        """A random edit of a kind that acts where answers are written, and the layers it acts on."""
        low, high = (self.random.uniform(*self.attack[end]) * (lm.n_layers - 1) for end in ("start", "end"))
        layers = [layer for layer in range(lm.n_layers) if low <= layer <= high]
        assert self.probes is not None
        at = int(self.random.integers(len(self.probes.c)))
        if kind == LANDING:
            return landing(self.probes, at, self.random.uniform(*self.attack["strengths"])), layers
        if kind == PROJECT:
            return project(self.draw_direction(lm)), list(range(lm.n_layers))
        towards_safe = (self.difference, -directions(self.probes)[at])[self.random.integers(2)]
        return push(towards_safe, self.random.uniform(*self.attack["budgets"]) * self.norm), layers


class Adversarial(EsAdversarial):
    """The rival: the same without separation, whatever the settings say."""

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        super().__init__(settings, data)
        self.weight = 0.0


@contextmanager
def _as_it_is(lm: LanguageModel) -> Iterator[None]:
    """The model without dropout, and none of its parameters trained: what attacks it looks at it so."""
    training, parameters = lm.model.training, trainable(lm.model).values()
    lm.model.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        lm.model.train(training)


def after_prompt(lm: LanguageModel) -> int:
    """How many of the chat template's tokens stand after a prompt."""
    return len(around_prompt(lm, "prompt")[1])


def _with(soft: SoftPrompt, example: Example, after: int) -> Example:
    """The example with the soft prompt's ids before the last `after` tokens of its prompt."""
    tokens = example.prompt_tokens
    place = len(tokens) - after
    return replace(example, prompt_tokens=[*tokens[:place], *soft.ids, *tokens[place:]])


def landing(probes: ProbeSet, at: int, strength: float) -> Edit:
    """SCAV's step to (1 - t) mu_H + t mu_S along the probes of one C, with gradients through it."""
    norm = probes.weight[at].norm(dim=-1)
    unit = probes.weight[at] / norm[:, None]
    target = ((1 - strength) * probes.mu_harmful[at] + strength * probes.mu_safe[at]) / norm

    def edit(layer: int, states: Tensor, rows: Tensor, step: int) -> Tensor:
        direction = unit[layer].to(states.device, states.dtype)
        move = torch.clamp(states @ direction - target[layer].item(), min=0.0)
        return states - move[:, None] * direction

    return edit


def project(unit: Tensor) -> Edit:
    """The component along `unit` [d] taken out, as refusal-direction ablation does."""

    def edit(layer: int, states: Tensor, rows: Tensor, step: int) -> Tensor:
        direction = unit.to(states.device, states.dtype)
        return states - (states @ direction)[:, None] * direction

    return edit


def push(unit: Tensor, length: Tensor) -> Edit:
    """A step of `length` [L] along `unit` [L, d]."""

    def edit(layer: int, states: Tensor, rows: Tensor, step: int) -> Tensor:
        return states + (length[layer] * unit[layer]).to(states.device, states.dtype)

    return edit
