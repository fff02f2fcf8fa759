"""The attacker that a training trains against: fitted on the defence split again and again, new edits for every batch.

What acts where an answer is written: a landing on a plane of a probe, a fixed push along the mean difference or a
probe, or a layer's mean difference projected out, at a strength, in a layer window and with a C. What acts at the
prompt's tokens as well: `ablation` takes a layer's mean difference out of all that is read and written, read at one of
the last `positions` tokens; where the config names a number of `hardest` directions, one of those whose ablation brings
out compliance most, as an attacker who searches would. `soft_prompt` puts free vectors after the prompt, trained each
time that it is drawn on answers of the untrained model with which it complied: from nothing, or where it is `carried`
on from where the last draw left it, until the attacker is fitted again. All are the attacks' own steps (method.md
section 6).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from es2.activations import Edit
from es2.attacks.ablation import ProjectionAttack
from es2.attacks.landing import directions
from es2.attacks.soft_prompt import Descent, SoftPrompt, blank, unused_tokens
from es2.checkpoints import trainable
from es2.embeddings import extract_last, extract_tokens, unit_difference
from es2.errors import UserError
from es2.examples import Example, Outputs, put_together, run_examples
from es2.methods.base import TrainingData
from es2.models import LanguageModel
from es2.probes import ProbeSet, fit_probe_set

LANDING, PROJECT, ABLATION, SOFT_PROMPT = "landing", "project", "ablation", "soft_prompt"  # any other edit is a push
FIRST_TRIED, TRIED = 4, 16  # prompts on which all directions are tried, and those of the best
TOKENS = 8  # of a compliant answer: its beginning decides

Place = tuple[int, int]
"""Where a mean difference is read: so many tokens before a prompt's last, and the layer."""


class Adversary:
    """`settings` are a training's `adversarial`; `seed` fixes what is drawn, together with the step.

    Fitted, it has the `probes` of the model, its mean `differences` safe - harmful [P, L, d] of unit length at the last
    P tokens of a prompt, the last first, the mean `norm` [L] of its embeddings, and where asked for the `hard` places
    (None: all, also where the parent refuses nothing that tells them apart).
    """

    def __init__(self, settings: Mapping[str, Any], data: TrainingData) -> None:
        self.settings, self.data = settings, data
        self.seed = 0
        self.random = np.random.default_rng(self.seed)
        self.probes: ProbeSet | None = None
        self.differences = torch.empty(0)
        self.norm = torch.empty(0)
        self.hard: list[Place] | None = None
        self.soft: SoftPrompt | None = None
        asks = {"hardest": settings["hardest"] is not None, "edits": SOFT_PROMPT in settings["edits"]}
        asking = [key for key, wanted in asks.items() if wanted]
        if asking and not data.compliant:
            raise UserError(
                f"training.adversarial.{asking[0]}: hardest directions and soft prompts are found by answers of the "
                "untrained model with which it complied to harmful prompts of a defence split; there are none, so "
                "leave `hardest` null and soft_prompt out of `edits`"
            )

    def begin(self, lm: LanguageModel, step: int) -> None:
        """Fit the attacker again every `refit_every` steps. What it draws is a function of seed and step alone, so that
        a resumed run is the undisturbed one (checkpoints fall on steps where it is fitted)."""
        self.random = np.random.default_rng([self.seed, step])
        if step % self.settings["refit_every"] == 0 or self.probes is None:
            self.fit(lm)

    @torch.no_grad()
    def fit(self, lm: LanguageModel) -> None:
        """Probes and mean difference of the model as it is now, on `fit_prompts` harmful and as many safe prompts of
        the defence split. A soft prompt begins anew."""
        self.soft = None
        chosen: list[str] = []
        for harmful in (True, False):
            ids = [key for key in self.data.references if (key in self.data.harmful) == harmful]
            places = np.random.default_rng(self.seed).permutation(len(ids))[: self.settings["fit_prompts"]]
            chosen += [ids[place] for place in places]
        with _as_it_is(lm):
            tokens = [self.data.references[key].prompt_tokens for key in chosen]
            labels = torch.tensor([key in self.data.harmful for key in chosen])
            most = lm.n_read(self.settings["positions"])
            every = extract_last(lm, tokens, most) if most > 1 else extract_tokens(lm, tokens)[None]
            self.probes = fit_probe_set(every[0], labels, every[0], labels, self.settings["c"], seed=0)
            self.norm = every[0].norm(dim=-1).mean(dim=0)
            self.differences = torch.stack([unit_difference(one, labels) for one in every])
            if self.settings["hardest"] is not None:
                self.hard = self.hardest(lm, self.settings["hardest"])

    def hardest(self, lm: LanguageModel, most: int) -> list[Place] | None:
        """The places within `depths` of the highest `log_odds`, sought among twice as many that a few prompts find:
        with six tokens and 25 layers that is less than half the work of trying all of them on every prompt."""
        places = self.within(lm)
        if 2 * most < len(places):
            places = self._best(lm, places, FIRST_TRIED, 2 * most)
        return self._best(lm, places, TRIED, most) or None

    def _best(self, lm: LanguageModel, places: Sequence[Place], tried: int, most: int) -> list[Place]:
        """The `most` places of the highest `log_odds` on the first `tried` prompts, the highest last."""
        odds = self.log_odds(lm, places, tried)
        return sorted(odds, key=odds.__getitem__)[-most:]

    @torch.no_grad()
    def log_odds(self, lm: LanguageModel, places: Sequence[Place], tried: int) -> dict[Place, float]:
        """{place: mean log-odds, without its direction, of the first token of the untrained model's compliance against
        that of the parent's refusal}, on the first `tried` harmful prompts that the two begin differently; empty where
        there is none, as for a run that starts from the untrained model itself.

        The first token is where it is decided whether to refuse. How likely all of that compliance becomes tells the
        best directions hardly apart, for many of them bring out another one.
        """
        known, said = self.data.references, self.data.compliant
        refused = [key for key in sorted(said) if known[key].verdict == "refusal"]
        keys = [key for key in refused if known[key].answer_tokens[0] != said[key][0]]
        if not keys:
            return {}
        examples = [Example(key, known[key].prompt_tokens, said[key][:1]) for key in keys[:tried]]
        pairs = torch.tensor([[said[key][0], known[key].answer_tokens[0]] for key in keys[:tried]], device=lm.device)
        found = {}
        for place in places:
            with ProjectionAttack(self.differences[place]).applied(lm):
                logits = lm.logits(run_examples(lm, examples).final).float()
            found[place] = -logits.gather(1, pairs).diff(dim=1).mean().item()
        return found

    def compliant(self, key: str) -> Example:
        """A harmful prompt with the beginning of the untrained model's compliance."""
        return Example(key, self.data.references[key].prompt_tokens, self.data.compliant[key][:TOKENS])

    def attacked(self, lm: LanguageModel, examples: Sequence[Example]) -> Outputs:
        """The forward pass over the examples, dealt to `parts` like cards, so that each part has some of every class;
        each under an edit of its own, whose kind comes again only where there are more parts than kinds."""
        edits, parts = self.settings["edits"], min(self.settings["parts"], len(examples))
        first = self.random.integers(len(edits))
        dealt = [range(part, len(examples), parts) for part in range(parts)]
        found = [
            self.attacked_by(lm, edits[(first + part) % len(edits)], [examples[place] for place in places])
            for part, places in enumerate(dealt)
        ]
        return put_together(found, dealt)

    def attacked_by(self, lm: LanguageModel, kind: str, examples: Sequence[Example]) -> Outputs:
        """The forward pass over the examples under an edit of a kind that is drawn."""
        if kind == ABLATION:
            with ProjectionAttack(self.draw_direction(lm)).applied(lm):
                return run_examples(lm, examples)
        if kind == SOFT_PROMPT:
            soft = self.fit_soft_prompt(lm)
            with soft.applied(lm):
                return run_examples(lm, [_with(soft, example, lm.n_after) for example in examples])
        edit, layers = self.draw(lm, kind)
        return run_examples(lm, examples, edit=edit, edited=layers)

    def fit_soft_prompt(self, lm: LanguageModel) -> SoftPrompt:
        """A soft prompt trained against the model as it is now, each step on compliance of its own."""
        settings, pool = self.settings["soft_prompt"], sorted(self.data.compliant)
        known = [tokens for one in self.data.references.values() for tokens in (one.prompt_tokens, one.answer_tokens)]
        soft = self.soft or blank(lm, unused_tokens(lm, [*known, *self.data.compliant.values()], settings["vectors"]))
        descent, after = Descent.of(lm, settings), lm.n_after
        with _as_it_is(lm):
            for _ in range(settings["steps"]):
                places = self.random.choice(len(pool), size=min(settings["batch"], len(pool)), replace=False)
                soft = descent.step(lm, soft, [_with(soft, self.compliant(pool[place]), after) for place in places])
        self.soft = soft if settings["carried"] else None
        return soft

    def draw_direction(self, lm: LanguageModel) -> Tensor:
        """The mean difference [d] of a random place within `depths`, one of the hardest if so set, of unit length."""
        places = self.within(lm) if self.hard is None else self.hard
        return self.differences[places[self.random.integers(len(places))]]

    def within(self, lm: LanguageModel) -> list[Place]:
        """The places whose layer is within `depths`."""
        first, last = (round(depth * (lm.n_layers - 1)) for depth in self.settings["depths"])
        backs = range(lm.n_read(self.settings["positions"]))
        return [(back, layer) for back in backs for layer in range(first, last + 1)]

    def draw(self, lm: LanguageModel, kind: str) -> tuple[Edit, list[int]]:
        """A random edit of a kind that acts where answers are written, and the layers it acts on."""
        low, high = (self.random.uniform(*self.settings[end]) * (lm.n_layers - 1) for end in ("start", "end"))
        layers = [layer for layer in range(lm.n_layers) if low <= layer <= high]
        assert self.probes is not None
        at = int(self.random.integers(len(self.probes.c)))
        if kind == LANDING:
            return landing(self.probes, at, self.random.uniform(*self.settings["strengths"])), layers
        if kind == PROJECT:
            return project(self.draw_direction(lm)), list(range(lm.n_layers))
        towards_safe = (self.differences[0], -directions(self.probes)[at])[self.random.integers(2)]
        return push(towards_safe, self.random.uniform(*self.settings["budgets"]) * self.norm), layers


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
