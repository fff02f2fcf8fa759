"""Batches of token sequences: sorted by length, cut by a token budget, the template's shared head run once."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from es2.models import Cursor, LanguageModel

T = TypeVar("T")


@dataclass(frozen=True)
class Padded:
    """Right-padded tokens [b, t], their attention mask [b, t] and lengths [b]."""

    tokens: Tensor
    mask: Tensor
    lengths: Tensor


def pad_right(sequences: Sequence[Sequence[int]], device: torch.device) -> Padded:
    """Pad with token 0, which the mask hides, to the longest sequence."""
    longest = max(len(sequence) for sequence in sequences)
    tokens = torch.tensor([[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences], device=device)
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
    mask = (torch.arange(longest, device=device)[None] < lengths[:, None]).long()
    return Padded(tokens, mask, lengths)


def shared_head(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix that leaves every sequence at least one token of its own."""
    if not sequences:
        return 0
    first, last = min(sequences), max(sequences)  # type: ignore[type-var]
    limit = min(len(sequence) for sequence in sequences) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return length


def token_budget_batches(lengths: Sequence[int], budget: int, most: int, shortest: float = 0.0) -> Iterator[list[int]]:
    """Indices in order of length, longest first, in batches of at most `budget` padded tokens and `most` rows.

    A row below `shortest` times the longest of its batch begins a new one: it would be padding for the most part.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        rows = order[start : start + max(1, min(most, budget // max(1, longest)))]
        batch = [row for row in rows if lengths[row] >= shortest * longest]
        yield batch
        start += len(batch)


def even_parts(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Consecutive parts of at most `most` items, as even as can be: a last part of one prompt would share all of its
    tokens but one with itself."""
    count = -(-len(items) // most)
    ends = [len(items) * part // count for part in range(count + 1)]
    yield from (items[start:end] for start, end in pairwise(ends))


def even_budget(lengths: Sequence[int], budget: int) -> int:
    """The smallest budget, in padded tokens, that needs no more batches than `budget` does.

    What is left over would else be a batch of a few rows, which reads all weights as a full one does.
    """

    def batches(tokens: int) -> int:
        return sum(1 for _ in token_budget_batches(lengths, tokens, most=len(lengths)))

    fewest, low = batches(budget), max(lengths, default=1)
    while low < budget:
        middle = (low + budget) // 2
        low, budget = (low, middle) if batches(middle) <= fewest else (middle + 1, budget)
    return budget


def run_head(lm: LanguageModel, tokens: Sequence[int], rows: Tensor | None = None) -> DynamicCache:
    """Keys and values of the shared head, run once as a batch of one and without a cursor; or once for each of `rows`
    [m], with a cursor that names them."""
    cache = DynamicCache()
    if tokens:
        n = 1 if rows is None else len(rows)
        ids = torch.tensor([list(tokens)], device=lm.device).expand(n, -1)
        with lm.looking_at(None if rows is None else Cursor(rows, torch.full((n,), len(tokens) - 1))):
            lm.decoder(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


def repeat_head(head: DynamicCache, which: Tensor) -> DynamicCache:
    """A cache whose row i is row which[i] of the head, of which there may be one alone; the head is left as it is."""
    repeated = copy.copy(head)
    repeated.layers = [copy.copy(layer) for layer in head.layers]
    for layer in repeated.layers:
        layer.keys, layer.values = (_rows(layer.keys, which), _rows(layer.values, which))  # type: ignore[union-attr]
    return repeated


def _rows(states: Any, which: Tensor) -> Tensor:
    rows: Tensor = states.expand(len(which), -1, -1, -1) if len(states) == 1 else states[which]
    return rows


def forward_after_head(
    lm: LanguageModel, head: DynamicCache, n_head: int, batch: Padded, which: Tensor | None = None
) -> tuple[Tensor, DynamicCache]:
    """Run right-padded tokens [b, t] after the head, of which row i has row which[i] where there are several: post-norm
    final states [b, t, d] and the filled cache."""
    rows, width = batch.tokens.shape
    cache = repeat_head(head, torch.zeros(rows, dtype=torch.long) if which is None else which)
    mask = torch.cat([batch.mask.new_ones(rows, n_head), batch.mask], dim=1)
    positions = torch.arange(n_head, n_head + width, device=batch.tokens.device)[None].expand(rows, -1)
    output = lm.decoder(
        input_ids=batch.tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return output.last_hidden_state, cache


def forward_whole(lm: LanguageModel, batch: Padded) -> Tensor:
    """Run right-padded tokens [b, t] without a head and without a cache: post-norm final states [b, t, d]."""
    output = lm.decoder(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False)
    states: Tensor = output.last_hidden_state
    return states
