"""Sequences end to end in one row: no padding, and the head that they share is run once, in the same pass.

To every layer but attention it is the same which sequence a token belongs to. Attention alone sets the sequences side
by side again, each one's queries against the head's keys and values and its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from es2.batching import Padded, forward_whole, pad_right
from es2.models import LanguageModel

ATTENTION = "es2_packed"
TRIED = ([5, 6, 7], [5, 6, 8, 9, 10, 11], [5, 6, 9, 8])  # token ids, whose first two are a head
BOUNDS = {torch.float32: 1e-3}  # of a tried state's norm; rounding of 16 bits adds up over layers
ROUGH = 0.1


@dataclass(frozen=True)
class Packed:
    """Token ids [n] and their positions [n]: those of the shared head, then each sequence's own, end to end.

    starts [m] (on the CPU): where in the row each sequence's own tokens begin. spread [m, w]: which own token (counted
    behind the head) stands where when the sequences lie side by side, padded on the right with their first. places
    [n - n_head]: where in that, row by row, each own token lies.
    """

    tokens: Tensor
    positions: Tensor
    n_head: int
    starts: Tensor
    spread: Tensor
    places: Tensor

    def find(self, rows: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Where in what `run` returns the states of the sequences `rows` [k] at their own tokens `own` [k] lie."""
        return torch.zeros_like(rows), self.starts[rows] + own

    def run(self, lm: LanguageModel) -> Tensor:
        """Post-norm final states [1, n, d] by a model that can take the row (see `can_pack`)."""
        unused = self.tokens.new_ones(1, 1, 1, 1)  # lest transformers make a mask [n, n]
        output = lm.decoder(
            input_ids=self.tokens[None],
            position_ids=self.positions[None],
            attention_mask=unused,
            use_cache=False,
            packed=self,
        )
        states: Tensor = output.last_hidden_state
        return states


@dataclass(frozen=True)
class Whole:
    """Sequences side by side, each with its head, for models that cannot take one row; to its user as `Packed` is."""

    batch: Padded
    n_head: int

    def find(self, rows: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """See `Packed`."""
        return rows, self.n_head + own

    def run(self, lm: LanguageModel) -> Tensor:
        """Post-norm final states [m, w, d]."""
        return forward_whole(lm, self.batch)


def lay_out(lm: LanguageModel, sequences: Sequence[Sequence[int]], n_head: int) -> Packed | Whole:
    """Sequences for one forward pass that have their first `n_head` tokens in common and each one more at least."""
    if can_pack(lm):
        return pack(sequences, n_head, lm.device)
    return Whole(pad_right(sequences, lm.device), n_head)


def pack(sequences: Sequence[Sequence[int]], n_head: int, device: torch.device) -> Packed:
    """Put sequences end to end that have their first `n_head` tokens in common."""
    lengths = torch.tensor([len(sequence) - n_head for sequence in sequences])
    before = lengths.cumsum(0) - lengths
    columns = torch.arange(int(lengths.max()))
    inside = columns < lengths[:, None]
    ids = [*sequences[0][:n_head], *(token for sequence in sequences for token in sequence[n_head:])]
    positions = torch.cat([torch.arange(n_head), n_head + columns.expand_as(inside)[inside]])
    spread = before[:, None] + columns * inside
    parts = (torch.tensor(ids), positions, spread, torch.nonzero(inside.flatten()).squeeze(1))
    tokens, positions, spread, places = (part.to(device) for part in parts)
    return Packed(tokens, positions, n_head, n_head + before, spread, places)


@torch.no_grad()
def can_pack(lm: LanguageModel) -> bool:
    """Whether this model gives the same states packed as whole, tried once on three short sequences.

    It does not where attention is not transformers' scaled dot product or a layer mixes tokens in another way.
    """
    if lm.packs is None:
        config = lm.base.config.get_text_config()
        usual = set(getattr(config, "layer_types", None) or []) <= {"full_attention", "sliding_attention"}
        lm.packs = usual and config._attn_implementation in ("sdpa", ATTENTION)
        if lm.packs:
            # It stays set, for a block under gradient checkpointing runs again in the backward pass; without `packed`
            # it is transformers' own.
            config._attn_implementation = ATTENTION
            lm.packs = _same_as_whole(lm)
            config._attn_implementation = ATTENTION if lm.packs else "sdpa"
    return lm.packs


def _same_as_whole(lm: LanguageModel) -> bool:
    """Both ways, without dropout, compared at every token."""
    training = lm.model.training
    lm.model.eval()
    packed, whole = pack(TRIED, 2, lm.device), Whole(pad_right(TRIED, lm.device), 2)
    rows = torch.repeat_interleave(torch.arange(len(TRIED)), torch.tensor([len(one) - 2 for one in TRIED]))
    own = torch.cat([torch.arange(len(one) - 2) for one in TRIED])
    try:
        found, expected = (layout.run(lm)[layout.find(rows, own)] for layout in (packed, whole))
    except (TypeError, ValueError, RuntimeError):  # the model takes no further arguments, or other shapes
        return False
    finally:
        lm.model.train(training)
    return bool((found - expected).norm() <= BOUNDS.get(found.dtype, ROUGH) * expected.norm())


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: Packed | None = None,
    sliding_window: int | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """transformers' attention for [b, heads, t, d], but of a packed row [1, heads, n, d] each sequence by itself."""
    if packed is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    n = packed.n_head
    rows, width = packed.spread.shape
    own, after = torch.arange(width, device=query.device), torch.arange(n + width, device=query.device)
    q, k, v = (_side_by_side(states, packed) for states in (query, key, value))
    k, v = (
        torch.cat([states[:, :, :n].expand(rows, -1, -1, -1), beside], dim=2)
        for states, beside in ((key, k), (value, v))
    )
    seen = _causal(own + n, after, sliding_window)
    out = sdpa_attention_forward(module, q, k, v, seen, **more)[0]
    parts = [_EndToEnd.apply(out.reshape(rows * width, *out.shape[2:]), packed.places)[None]]
    if n:
        q, k, v = (states[:, :, :n] for states in (query, key, value))
        seen = _causal(after[:n], after[:n], sliding_window)
        parts.insert(0, sdpa_attention_forward(module, q, k, v, seen, **more)[0])
    return torch.cat(parts, dim=1), None


def _causal(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Mask [1, 1, queries, keys] of the positions that a query sees: its own and those before it, within the window."""
    back = queries[:, None] - keys
    seen = back >= 0 if window is None else (back >= 0) & (back < window)
    return seen[None, None]


def _side_by_side(states: Tensor, packed: Packed) -> Tensor:
    """The own tokens' states [m, heads, w, d] of a packed row [1, heads, n, d]."""
    own = states[0, :, packed.n_head :].transpose(0, 1)
    spread: Tensor = _SideBySide.apply(own, packed.spread.flatten(), packed.places)
    return spread.view(*packed.spread.shape, *spread.shape[1:]).transpose(1, 2)


class _SideBySide(torch.autograd.Function):
    """Rows [m w, ...] out of [n, ...]; a padding's gradient, which is zero, is not read."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, spread: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return states.index_select(0, spread)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradients[0].index_select(0, places), None, None


class _EndToEnd(torch.autograd.Function):
    """The way back, [n, ...] out of [m w, ...]."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.shape = states.shape
        return states.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return gradients[0].new_zeros(ctx.shape).index_copy_(0, places, gradients[0]), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
