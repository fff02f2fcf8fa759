"""Extraction: the residual stream of every layer at the last prompt token."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor

from es2.activations import last_mlp_at_cursor, record_residual
from es2.batching import even_budget, shared_head, token_budget_batches
from es2.errors import UserError
from es2.models import Cursor, LanguageModel
from es2.packing import Packed, Whole, lay_out
from es2.tensors import write_pieces

PIECE = 4096  # prompts whose embeddings are in memory at a time; batches are sorted by length within a piece


@dataclass(frozen=True)
class Embeddings:
    """Embeddings `values` [n, L, d] (float32) of the prompts `prompt_ids` [n]."""

    prompt_ids: list[str]
    values: Tensor

    def of(self, prompt_ids: Sequence[str]) -> Tensor:
        """Rows [m, L, d] of the prompts asked for, in that order; UserError if one is missing."""
        place = {prompt_id: index for index, prompt_id in enumerate(self.prompt_ids)}
        missing = [prompt_id for prompt_id in prompt_ids if prompt_id not in place]
        if missing:
            raise UserError(f"embeddings: {len(missing)} prompts have none (first: {missing[0]}); extract them again")
        return self.values[[place[prompt_id] for prompt_id in prompt_ids]]


@torch.no_grad()
def extract(lm: LanguageModel, prompts: Sequence[str], batch_tokens: int = 512) -> Tensor:
    """Embeddings [n, L, d] (float32, CPU) of `prompts`: one vector a layer, no LM head, the shared head run once."""
    return extract_tokens(lm, lm.chat_tokens(prompts), batch_tokens)


@torch.no_grad()
def extract_tokens(lm: LanguageModel, sequences: Sequence[Sequence[int]], batch_tokens: int = 512) -> Tensor:
    """Embeddings [n, L, d] of token sequences at their last token; see `extract`."""
    layers = range(lm.n_layers)
    values = torch.empty(len(sequences), len(layers), lm.width)
    for rows, layout, last in _passes(lm, sequences, shared_head(sequences), batch_tokens):
        at = layout.find(torch.arange(len(rows)), last)[1].to(lm.device)
        with (
            last_mlp_at_cursor(lm),
            record_residual(lm, layers) as recorded,
            lm.looking_at(Cursor(torch.tensor(rows), at)),
        ):
            layout.run(lm)
        values[rows] = torch.stack([recorded[layer] for layer in layers], dim=1).float().cpu()
    return values


@torch.no_grad()
def extract_last(lm: LanguageModel, sequences: Sequence[Sequence[int]], count: int, batch_tokens: int = 512) -> Tensor:
    """Embeddings [count, n, L, d] of token sequences at each of their last `count` tokens, the last first, in one pass.

    No sequence may be shorter than that.
    """
    layers = range(lm.n_layers)
    values = torch.empty(count, len(sequences), len(layers), lm.width)
    n_head = min(shared_head(sequences), min(len(sequence) for sequence in sequences) - count)
    for rows, layout, last in _passes(lm, sequences, n_head, batch_tokens):
        every = torch.arange(len(rows))
        cursor = Cursor(torch.tensor(rows), layout.find(every, last)[1].to(lm.device))
        with record_residual(lm, layers, whole=True) as recorded, lm.looking_at(cursor):
            layout.run(lm)
        for back in range(count):
            at = layout.find(every, last - back)
            values[back, rows] = torch.stack([recorded[layer][at] for layer in layers], dim=1).float().cpu()
    return values


def _passes(
    lm: LanguageModel, sequences: Sequence[Sequence[int]], n_head: int, batch_tokens: int
) -> Iterator[tuple[list[int], Packed | Whole, Tensor]]:
    """The forward passes of an extraction: which sequences, how they lie, and each one's last own token [b]."""
    lengths = [len(sequence) - n_head for sequence in sequences]
    for rows in token_budget_batches(lengths, even_budget(lengths, batch_tokens), most=len(lengths)):
        layout = lay_out(lm, [sequences[row] for row in rows], n_head)
        yield rows, layout, torch.tensor([lengths[row] - 1 for row in rows])


def unit_difference(values: Tensor, harmful: Tensor) -> Tensor:
    """Unit vectors [L, d] from the mean of the `harmful` [n] embeddings of `values` [n, L, d] to that of the others."""
    difference = values[~harmful].mean(dim=0) - values[harmful].mean(dim=0)
    return difference / difference.norm(dim=-1, keepdim=True)


def harmful_of(prompts: pd.DataFrame) -> Tensor:
    """A mask [n] of the harmful ones of labelled prompts (column label)."""
    return torch.tensor((prompts["label"] == "harmful").to_numpy())


def extract_pieces(
    lm: LanguageModel, prompts: Sequence[str], batch_tokens: int = 512, piece: int = PIECE
) -> Iterator[Tensor]:
    """`extract` of `piece` prompts after the other: embeddings [piece, L, d], and tokens, of one piece in memory."""
    for start in range(0, max(1, len(prompts)), piece):
        yield extract(lm, prompts[start : start + piece], batch_tokens)


def save_embeddings(path: str | Path, prompt_ids: Sequence[str], pieces: Iterable[Tensor], **about: str) -> None:
    """Write embeddings, in pieces [m, L, d] as they come, with their prompt ids and what made them (`about`)."""
    waiting = iter(pieces)
    first = next(waiting)
    metadata = {"prompt_ids": json.dumps(list(prompt_ids)), **about}
    write_pieces(path, "embeddings", (len(prompt_ids), *first.shape[1:]), chain([first], waiting), metadata)


def load_embeddings(path: str | Path) -> Embeddings:
    """Read what `save_embeddings` wrote."""
    with safe_open(str(path), framework="pt") as stream:
        return Embeddings(json.loads(stream.metadata()["prompt_ids"]), stream.get_tensor("embeddings"))
