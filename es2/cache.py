"""A cache of keys and values with room for the tokens to come: a step of decoding writes one place a row.

transformers' own cache grows by concatenation, so that each step copies all that it holds. The keys and values that
attention sees are the same.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values [b, heads, t, d] of one layer, as views of buffers [rows, heads, room, d].

    It does what decoding asks for; of what else a layer of transformers can (beams, cropping) the buffers know nothing.
    """

    def __init__(self, parts: Sequence[Any], width: int, room: int, repeats: Sequence[int] | None = None) -> None:
        """Join layers that hold keys and values of some rows each, as if each held `width` places (the rest are zeros,
        for a mask to hide), with `room` places in all, and each row `repeats` times, all rows of all parts counted."""
        super().__init__()
        self.lazy_initialization(parts[0].keys, parts[0].values)
        self._buffers = [_joined([getattr(part, name) for part in parts], room, repeats) for name in ("keys", "values")]
        self._look(len(self._buffers[0]), width)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values [b, heads, n, d] of the next n places; those of all places so far."""
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: len(states), :, start:end] = states
        return self._look(len(key_states), end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Let row i be what row indices[i] was; a row that stays at its place is not copied."""
        moved = torch.nonzero(indices != torch.arange(len(indices), device=indices.device)).squeeze(1)
        length = self.get_seq_length()
        for buffer in self._buffers:
            buffer[moved, :, :length] = buffer[indices[moved], :, :length]
        self._look(len(indices), length)

    def _look(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self._buffers)
        return self.keys, self.values


def join_caches(
    caches: Sequence[DynamicCache], width: int, room: int, repeats: Sequence[int] | None = None
) -> DynamicCache:
    """One cache of the rows of several; see `RoomyLayer`."""
    joined = DynamicCache()
    joined.layers = [
        RoomyLayer(layers, width, room, repeats) for layers in zip(*(cache.layers for cache in caches), strict=True)
    ]
    return joined


def close_ranks(stays: Tensor) -> Tensor:
    """Where the rows that stay ([b], true or false) come from when the last ones fill the places of those that go."""
    kept = torch.nonzero(stays).squeeze(1)
    places = torch.arange(len(kept), device=stays.device)
    places[~stays[: len(kept)]] = kept[kept >= len(kept)]
    return places


def _joined(parts: Sequence[Tensor], room: int, repeats: Sequence[int] | None) -> Tensor:
    """States [b, heads, t, d] of several parts below each other, with zeros up to `room` places, each row `repeats`
    times."""
    _, heads, _, width = parts[0].shape
    counts = torch.tensor([1] * sum(len(part) for part in parts) if repeats is None else repeats)
    buffer = parts[0].new_zeros(int(counts.sum()), heads, room, width)
    start = 0
    for part, some in zip(parts, counts.split([len(part) for part in parts]), strict=True):
        end = start + int(some.sum())
        buffer[start:end, :, : part.shape[2]] = part.repeat_interleave(some.to(part.device), dim=0)
        start = end
    return buffer
