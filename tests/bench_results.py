"""Results of the bench's two sides, and what they look like when one of them is wrong."""

from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from bench.probes import Probed
from bench.steps import Stepped
from es2.generation import generate


def rows_of(lm, prompts, n):
    """Tokens of our own answers."""
    return [one.tokens for one in generate(lm, lm.chat_tokens(prompts), n)]


def nudged(values: Tensor, by: float) -> Tensor:
    """One entry (one vector, where there are several) off by so much."""
    values = values.clone()
    flat = values.view(-1) if values.ndim < 3 else values.view(-1, values.shape[-1])
    flat[-1] = flat[-1] * (1 + by) + by
    return values


def spoiled(result: Any, by: float = 0.01) -> list[Any]:
    """The result with one part of it wrong, numbers by so much, each part in turn."""
    if isinstance(result, Tensor):
        return [nudged(result, by), result[:-1]]
    if isinstance(result, Stepped):
        return [replace(result, **{one.name: (1 + by) * getattr(result, one.name)}) for one in fields(result)]
    if isinstance(result, Probed):
        return [replace(result, **{one.name: nudged(getattr(result, one.name), by)}) for one in fields(result)]
    swapped = [[*answer[:-1], answer[-1] + 1] for answer in result[:1]]
    return [[*swapped, *result[1:]], result[::-1]]
