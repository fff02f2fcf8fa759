"""Greedy answers: sorted token-budget batches, the shared head run once, finished answers dropped."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from es2.batching import Padded, forward_after_head, pad_right, run_head, shared_head, token_budget_batches
from es2.models import Cursor, LanguageModel


@dataclass(frozen=True)
class Answer:
    """An answer's tokens (without the end token), its text, and whether it ended within the limit."""

    tokens: list[int]
    text: str
    finished: bool


@torch.no_grad()
def generate(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    max_new_tokens: int = 32,
    batch_rows: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """Greedy answers of at most `max_new_tokens` tokens to token sequences, in their order.

    Before each forward pass `lm.cursor` is set to the rows and positions that predict the next token, so that a
    residual edit (es2.activations.edit_residual) acts on the last prompt token and on every generated one.
    """
    answers: list[Answer | None] = [None] * len(sequences)
    n_head = shared_head(sequences)
    head = run_head(lm, sequences[0][:n_head]) if sequences else None
    own = [list(sequence[n_head:]) for sequence in sequences]
    try:
        for rows in _batches(lm, n_head, [len(tokens) for tokens in own], max_new_tokens, batch_rows):
            assert head is not None
            batch = pad_right([own[row] for row in rows], lm.device)
            for row, tokens, finished in _generate_batch(lm, head, n_head, batch, rows, max_new_tokens):
                text = lm.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                answers[row] = Answer(tokens, text, finished)
            if progress is not None:
                progress(len(rows))
    finally:
        lm.cursor = None
    return [answer for answer in answers if answer is not None]


def _batches(
    lm: LanguageModel, n_head: int, lengths: Sequence[int], max_new_tokens: int, batch_rows: int
) -> Iterator[list[int]]:
    """Batches of rows; of one length each where a sliding window is in reach.

    A sliding window counts places in the cache, padding included, so that a padded row would see too little.
    """
    window = getattr(lm.base.config.get_text_config(), "sliding_window", None)
    groups = [list(range(len(lengths)))]
    if window is not None and n_head + max(lengths, default=0) + max_new_tokens > window:
        groups = [[row for row in groups[0] if lengths[row] == length] for length in sorted(set(lengths))]
    for group in groups:
        for batch in token_budget_batches([lengths[row] for row in group], 1 << 14, most=batch_rows):
            yield [group[place] for place in batch]


def _generate_batch(
    lm: LanguageModel, head: DynamicCache, n_head: int, batch: Padded, rows: list[int], max_new_tokens: int
) -> list[tuple[int, list[int], bool]]:
    """Greedy answers to one batch: (row, tokens, finished) for each of its rows."""
    ends = torch.tensor(sorted(lm.end_tokens()), device=lm.device)
    alive = torch.tensor(rows)
    lm.cursor = Cursor(alive, batch.lengths - 1, step=0)
    states, cache = forward_after_head(lm, head, n_head, batch)
    last = states[torch.arange(len(rows)), batch.lengths - 1]
    mask = torch.cat([batch.mask.new_ones(len(rows), n_head), batch.mask], dim=1)
    position = n_head + batch.lengths
    tokens: dict[int, list[int]] = {row: [] for row in rows}
    done: list[tuple[int, list[int], bool]] = []
    for step in range(1, max_new_tokens + 1):
        new = lm.logits(last).argmax(dim=-1)
        ended = torch.isin(new, ends)
        for row, token, end in zip(alive.tolist(), new.tolist(), ended.tolist(), strict=True):
            if end:
                done.append((row, tokens[row], True))
            else:
                tokens[row].append(token)
        if ended.any():
            kept = torch.nonzero(~ended).squeeze(1)
            cache.batch_select_indices(kept)
            alive, new, mask, position = alive[kept.cpu()], new[kept], mask[kept], position[kept]
        if step == max_new_tokens or len(alive) == 0:
            break
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        last = _decode_step(lm, cache, new, mask, position, alive, step)
        position = position + 1
    return done + [(row, tokens[row], False) for row in alive.tolist()]


def _decode_step(
    lm: LanguageModel,
    cache: DynamicCache,
    new: Tensor,
    mask: Tensor,
    position: Tensor,
    alive: Tensor,
    step: int,
) -> Tensor:
    """Feed one token a row; post-norm final states [b, d] that predict the next."""
    lm.cursor = Cursor(alive, torch.zeros_like(position), step)
    output = lm.decoder(
        input_ids=new[:, None],
        attention_mask=mask,
        position_ids=position[:, None],
        past_key_values=cache,
        use_cache=True,
    )
    states: Tensor = output.last_hidden_state[:, 0]
    return states
