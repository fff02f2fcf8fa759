"""One ES2 step, forward and backward, against two models side by side."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from bench.measure import Comparison, expect_close, expect_close_vectors
from bench.scene import SEED, Scene, study
from es2.checkpoints import trainable
from es2.embeddings import Embeddings, extract_tokens
from es2.examples import Example
from es2.methods.base import TrainingData
from es2.methods.separation import Separation
from es2.models import LanguageModel
from es2.reference import record
from es2.training import add_lora

BOUND = 1e-4  # of the loss, and of the gradient's norm
DEPTHS = (0.43, 0.63, 0.8)  # layers 12, 18 and 23 of 30, which the default study chooses


@dataclass(frozen=True)
class Stepped:
    """The loss and its gradient to all adapter weights, one vector."""

    loss: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Course:
    """Parent and child in memory, the settings of ES2, its data, and our method made of them."""

    parent: Any
    child: LanguageModel
    settings: Mapping[str, Any]
    data: TrainingData
    method: Separation

    def examples(self, each: int) -> list[Example]:
        """`each` look-dangerous prompts and as many plain ones, with the parent's answers."""
        ids = [*sorted(self.data.harmful)[:each], *sorted(set(self.data.references) - self.data.harmful)[:each]]
        return [self.method.example(prompt_id, 0) for prompt_id in ids]


def training_data(
    lm: LanguageModel, harmful: Sequence[str], safe: Sequence[str], layers: Sequence[int], answer_tokens: int
) -> TrainingData:
    """The model's own answers to both kinds of prompts, the states along them, and the prompts' embeddings."""
    texts = {f"h{i:02}": text for i, text in enumerate(harmful)} | {f"s{i:02}": text for i, text in enumerate(safe)}
    recorded = record(lm, texts, lambda *_: "refusal", answer_tokens)
    values = extract_tokens(lm, [one.prompt_tokens for one in recorded])
    return TrainingData(
        harmful=frozenset(name for name in texts if name.startswith("h")),
        references={one.prompt_id: one for one in recorded},
        refusals=[],
        embeddings=Embeddings(list(texts), values),
        layers=layers,
    )


def course(scene: Scene) -> Course:
    """The child is the parent under an adapter with small random weights, so that no term of the loss is zero.

    Answers and the states along them are recorded beforehand and count for neither side: both need the answers, and
    es2 keeps the states that wrote them. Look-dangerous prompts stand in for harmful ones, and their answers for
    refusals, so that every answer token has its KL.
    """
    settings, each = study()["training"], scene.sizes.step
    parent = scene.lm.model.requires_grad_(False)
    layers = [int(depth * (scene.lm.n_layers - 1)) for depth in DEPTHS]
    tokens = min(study()["reference"]["answer_tokens"], scene.sizes.new_tokens)
    data = training_data(scene.lm, scene.look_dangerous[:each], scene.plain[:each], layers, tokens)
    child = LanguageModel(deepcopy(parent), scene.lm.tokenizer)
    add_lora(child, settings["lora"], SEED)
    torch.manual_seed(SEED)
    with torch.no_grad():
        for name, weight in trainable(child.model).items():
            if "lora_B" in name:
                weight.add_(0.01 * torch.randn_like(weight))
    return Course(parent, child, settings, data, Separation(settings, data))


def two_models(course: Course, examples: Sequence[Example], width: int) -> Tensor:
    """Anchor: the loss by a forward pass of each model over whole sequences padded to `width`, as trainers write it.

    Circuit breakers' trainer pads every example to 512 tokens.
    """
    device, settings = course.child.device, course.settings
    sequences = [[*one.prompt_tokens, *one.answer_tokens] for one in examples]
    tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences], device=device)
    lengths = torch.tensor([len(ids) for ids in sequences], device=device)
    mask = (torch.arange(width, device=device) < lengths[:, None]).long()
    with torch.no_grad():
        held = course.parent(input_ids=tokens, attention_mask=mask, output_hidden_states=True, use_cache=False)
    out = course.child.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True, use_cache=False)

    rows = torch.arange(len(examples), device=device)
    last = torch.tensor([len(one.prompt_tokens) - 1 for one in examples], device=device)
    harmful = torch.tensor([one.prompt_id in course.data.harmful for one in examples], device=device)
    states, parent = (
        torch.stack([each.hidden_states[layer + 1][rows, last] for layer in course.data.layers]) for each in (out, held)
    )
    apart = torch.cdist(states[:, harmful], states[:, ~harmful]).mean(dim=(1, 2))
    separation = torch.relu(settings["separation"]["target"] - apart / course.method.parent_distance.to(device)).mean()
    drift = ((states - parent)[:, ~harmful].norm(dim=-1) / parent[:, ~harmful].norm(dim=-1)).mean()

    places = torch.arange(width, device=device)
    answer = (places >= last[:, None]) & (places < lengths[:, None] - 1)
    log_p, log_q = (log_softmax(each.logits[answer].float(), dim=-1) for each in (out, held))
    kl = kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=-1)
    of_harmful = harmful[:, None].expand_as(answer)[answer]
    total: Tensor = (
        settings["separation"]["weight"] * separation
        + settings["kl"]["weight"] * kl[~of_harmful].mean()
        + settings["hold"]["refusals"] * kl[of_harmful].mean()
        + settings["hold"]["safe_drift"] * drift
    )
    return total


def one_model(course: Course, examples: Sequence[Example]) -> Tensor:
    """Our path: the loss as es2.training takes it."""
    return course.method.loss(course.child, examples, course.method.run(course.child, examples)).total


def step(course: Course, loss: Callable[[], Tensor]) -> Stepped:
    """Forward and backward; the optimizer, which is the same on both sides, is left out."""
    model = course.child.model.train()
    total = loss()
    total.backward()
    gradient = torch.cat([torch.as_tensor(weight.grad).flatten() for weight in trainable(model).values()])
    model.zero_grad()
    return Stepped(total.detach(), gradient)


def check(found: Stepped, expected: Stepped) -> None:
    """Loss and gradient."""
    expect_close("loss (relative)", found.loss / expected.loss, torch.ones_like(found.loss), BOUND)
    expect_close_vectors("gradient", found.gradient, expected.gradient, BOUND)


def comparisons(scene: Scene) -> Iterator[Comparison]:
    """Two models with the batch's own width, then padded to one width, on fewer prompts for want of memory."""
    made, sizes = course(scene), scene.sizes
    padded, whole = made.examples(sizes.padded_step), made.examples(sizes.step)
    longest = max(len(one.prompt_tokens) + len(one.answer_tokens) for one in whole)
    rows = (
        ("two_models_dynamic_padding", whole, longest, sizes.repetitions),
        ("two_models_padded_512", padded, sizes.pad_to, sizes.slow_repetitions),
    )
    for name, examples, width, repetitions in rows:
        yield Comparison(
            "es2_step",
            name,
            lambda examples=examples: step(made, lambda: one_model(made, examples)),  # type: ignore[misc]
            lambda examples=examples, width=width: step(made, lambda: two_models(made, examples, width)),  # type: ignore[misc]
            check,
            repetitions,
        )
