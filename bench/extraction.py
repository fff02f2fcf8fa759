"""Extraction of every layer at the last prompt token, against `output_hidden_states`; and in which precision."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from bench.measure import Comparison, expect_close_vectors
from bench.scene import Scene, chat_texts
from es2.batching import shared_head
from es2.embeddings import extract
from es2.models import LanguageModel

BOUND = 1e-4  # of a vector's norm
ROUGH = 0.1  # the same in bfloat16, whose eight bits round in every layer


@torch.no_grad()
def one_prompt_at_a_time(model: Any, tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    """Anchor: states [n, L, d] as SCAV's published code takes them, one forward pass a prompt."""
    found = []
    for text in chat_texts(tokenizer, prompts):
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)
        states = model(**inputs, output_hidden_states=True).hidden_states[1:]
        found.append(torch.stack([layer[0, -1] for layer in states]).cpu())
    return torch.stack(found)


@torch.no_grad()
def batched_hidden_states(model: Any, tokenizer: Any, prompts: Sequence[str], batch: int) -> Tensor:
    """Anchor: the same in batches in the given order, padded on the left so that every prompt ends at -1."""
    tokenizer.padding_side = "left"
    texts, found = chat_texts(tokenizer, prompts), []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        inputs = tokenizer(part, add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
        states = model(**inputs, output_hidden_states=True).hidden_states[1:]
        found.append(torch.stack([layer[:, -1] for layer in states], dim=1).cpu())
    return torch.cat(found)


def comparisons(scene: Scene) -> Iterator[Comparison]:
    """Both anchors against es2.embeddings.extract."""
    lm, prompts = scene.lm, scene.prompts()
    batch = 8 if scene.machine.device.type == "cpu" else 32

    def ours() -> Tensor:
        return extract(lm, prompts, scene.batch_tokens())

    def check(found: Tensor, expected: Tensor) -> None:
        # transformers gives the last layer after the final norm, es2 before it.
        with torch.no_grad():
            normed = lm.decoder.norm(found[:, -1].to(lm.device)).cpu()  # type: ignore[operator]
        expect_close_vectors("embeddings", torch.cat([found[:, :-1], normed[:, None]], dim=1), expected, BOUND)

    anchors = {
        "one_prompt_at_a_time": lambda: one_prompt_at_a_time(lm.model, lm.tokenizer, prompts),
        "batched_hidden_states": lambda: batched_hidden_states(lm.model, lm.tokenizer, prompts, batch),
    }
    for name, theirs in anchors.items():
        yield Comparison("extraction", name, ours, theirs, check, scene.sizes.repetitions, flop=least_flop(lm, prompts))
    yield _bfloat16(scene, ours)


def _bfloat16(scene: Scene, in_float32: Callable[[], Tensor]) -> Comparison:
    """The same in bfloat16 against float32: which of the two a study should take on this machine."""
    lm = scene.lm
    rounded = LanguageModel(deepcopy(lm.model).to(torch.bfloat16), lm.tokenizer, lm.system_prompt)

    def ours() -> Tensor:
        return extract(rounded, scene.prompts(), scene.batch_tokens()).float()

    def check(found: Tensor, expected: Tensor) -> None:
        expect_close_vectors("embeddings", found, expected, ROUGH)

    return Comparison("extraction_bfloat16", "float32", ours, in_float32, check, scene.sizes.repetitions)


def least_flop(lm: LanguageModel, prompts: Sequence[str]) -> float:
    """2 N_blocks floating-point operations for each token that must be run: the shared head once, then each own."""
    weights = sum(parameter.numel() for parameter in lm.blocks.parameters() if parameter.ndim == 2)
    return 2.0 * weights * tokens_to_run(lm.chat_tokens(prompts))


def tokens_to_run(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens of prompts, those of their shared head counted once."""
    head = shared_head(sequences)
    return head + sum(len(tokens) - head for tokens in sequences)
