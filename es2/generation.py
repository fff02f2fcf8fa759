"""Answers, greedy or drawn: sorted token-budget batches, the shared head run once, finished answers dropped."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from es2.batching import forward_after_head, pad_right, run_head, shared_head, token_budget_batches
from es2.cache import close_ranks, join_caches
from es2.models import Cursor, LanguageModel

PREFILL_TOKENS = 512
CACHE_PLACES = 1 << 14  # rows times the places that the longest takes in the cache
Pick = Callable[[Tensor, Tensor, int], Tensor]
"""pick(logits [b, V], rows [b], step) -> the rows' tokens [b] at that step of the answer, the first of which is 0."""

SHORTEST = 0.6  # a shorter row, against the longest of its batch, waits for the next: all attend to the longest's width


@dataclass(frozen=True)
class Answer:
    """An answer's tokens (without the end token), its text, and whether it ended within the limit.

    `states` [t, d], where they were asked for: the post-norm final states that predicted the tokens and, where the
    answer ended, the end token (float32, CPU).
    """

    tokens: list[int]
    text: str
    finished: bool
    states: Tensor | None = None


def greedy(logits: Tensor, _rows: Tensor, _step: int) -> Tensor:
    """The likeliest tokens [b], of equals the first; see `Pick`. On a CPU `argmax` takes longer to find the same, in
    bfloat16 several times as long."""
    return logits.max(dim=-1).indices


@torch.no_grad()
def generate(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    max_new_tokens: int = 32,
    batch_rows: int = 64,
    progress: Callable[[int], None] | None = None,
    keep_states: bool = False,
    pick: Pick = greedy,
    groups: Sequence[Hashable] | None = None,
) -> list[Answer]:
    """Answers of at most `max_new_tokens` tokens to token sequences, in their order; greedy unless `pick` says else.

    Before each forward pass `lm.cursor` is set to the rows and positions that predict the next token, so that a
    residual edit (es2.activations.edit_residual) acts on the last prompt token and on every generated one. What comes
    before the last token of a sequence that is there several times in a batch is run once, without a cursor.

    Where edits act at every token (es2.attacks.ablation), `groups` [n] has the same entry for the sequences under the
    same edit: each group then runs the shared head for itself, each sequence all of its own tokens, and in every pass
    there is a cursor, which has one row of each group when the head is run.
    """
    if not sequences:
        return []
    answers: list[Answer | None] = [None] * len(sequences)
    asked = _Asked.of(lm, sequences, groups)
    try:
        for rows in _batches(lm, asked.n_head, [len(tokens) for tokens in asked.own], max_new_tokens, batch_rows):
            seen: list[tuple[Tensor, Tensor]] | None = [] if keep_states else None
            for row, tokens, finished in _generate_batch(lm, asked, rows, max_new_tokens, seen, pick):
                text = lm.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                states = None if seen is None else torch.cat([last[kept == row] for kept, last in seen])
                answers[row] = Answer(tokens, text, finished, states)
            if progress is not None:
                progress(len(rows))
    finally:
        lm.cursor = None
    return [answer for answer in answers if answer is not None]


@dataclass(frozen=True)
class _Asked:
    """The sequences' own tokens, and the head before them that they share: it was run once, or for every group, whose
    row of it `which` [n] tells for each sequence."""

    head: DynamicCache
    n_head: int
    own: list[list[int]]
    which: Tensor | None

    @classmethod
    def of(cls, lm: LanguageModel, sequences: Sequence[Sequence[int]], groups: Sequence[Hashable] | None) -> "_Asked":
        n_head = shared_head(sequences)
        own = [list(sequence[n_head:]) for sequence in sequences]
        if groups is None:
            return cls(run_head(lm, sequences[0][:n_head]), n_head, own, None)
        place = {group: index for index, group in enumerate(dict.fromkeys(groups))}
        head = run_head(lm, sequences[0][:n_head], torch.tensor([groups.index(group) for group in place]))
        return cls(head, n_head, own, torch.tensor([place[group] for group in groups]))


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
    fixed = n_head + max_new_tokens  # what every row has in the cache, beside its own tokens
    for group in groups:
        places = [fixed + lengths[row] for row in group]
        for batch in token_budget_batches(places, CACHE_PLACES, most=batch_rows, shortest=SHORTEST):
            yield [group[place] for place in batch]


@dataclass
class _Running:
    """The rows [b] that are still answered: their cache, its mask [b, t], the next token's position [b], and the
    post-norm final states [b, d] of their last token, which predict it."""

    rows: Tensor
    cache: DynamicCache
    mask: Tensor
    position: Tensor
    last: Tensor

    def drop(self, ended: Tensor) -> Tensor:
        """Drop the rows that `ended` [b]; where those that stay come from."""
        places = close_ranks(~ended)
        self.cache.batch_select_indices(places)
        self.rows, self.mask, self.position = self.rows[places.cpu()], self.mask[places], self.position[places]
        return places


def _generate_batch(
    lm: LanguageModel,
    asked: _Asked,
    rows: list[int],
    max_new_tokens: int,
    seen: list[tuple[Tensor, Tensor]] | None,
    pick: Pick,
) -> list[tuple[int, list[int], bool]]:
    """Answers to one batch: (row, tokens, finished) for each of its rows; to `seen`, if it is there, the rows
    [b] of each step with the final states [b, d] that predict their next token."""
    ends = torch.tensor(sorted(lm.end_tokens()), device=lm.device)
    running = _prefill(lm, asked, rows, max_new_tokens)
    tokens: dict[int, list[int]] = {row: [] for row in rows}
    done: list[tuple[int, list[int], bool]] = []
    for step in range(1, max_new_tokens + 1):
        if seen is not None:
            seen.append((running.rows, running.last.float().cpu()))
        new = pick(lm.logits(running.last), running.rows, step - 1)
        ended = torch.isin(new, ends)
        for row, token, end in zip(running.rows.tolist(), new.tolist(), ended.tolist(), strict=True):
            if end:
                done.append((row, tokens[row], True))
            else:
                tokens[row].append(token)
        if ended.any():
            new = new[running.drop(ended)]
        if step == max_new_tokens or len(new) == 0:
            break
        _decode_step(lm, running, new, step)
    return done + [(row, tokens[row], False) for row in running.rows.tolist()]


def _prefill(lm: LanguageModel, asked: _Asked, rows: list[int], max_new_tokens: int) -> _Running:
    """Run the prompts' own tokens in small batches of like length, then join their caches for decoding.

    Decoding is fastest in wide batches, reading prompts in narrow ones: there padding is most of the cost. Where a
    prompt stands in several rows, one for each setting of an attack that acts from its last token on, what comes before
    that token is run once and without a cursor. Each row then runs that one for itself, as a step of decoding.
    """
    own, n_head = asked.own, asked.n_head
    repeated = asked.which is None and len({tuple(own[row]) for row in rows}) < len(rows)
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        rows_of.setdefault(tuple(own[row][:-1]) if repeated else (row,), []).append(row)
    shared = list(rows_of.values())
    stems = [own[some[0]][:-1] if repeated else own[some[0]] for some in shared]
    caches, states, ordered, repeats = [], [], [], []
    for places in token_budget_batches([len(stem) for stem in stems], PREFILL_TOKENS, most=len(stems)):
        part, together = ([some[place] for place in places] for some in (stems, shared))
        # An empty stem is run as one token, which is then masked or overwritten.
        batch = pad_right([stem or [0] for stem in part], lm.device)
        last = batch.lengths - 1
        lm.cursor = None if repeated else Cursor(torch.tensor([row for (row,) in together]), last, step=0)
        which = None if asked.which is None else asked.which[[row for (row,) in together]]
        found, cache = forward_after_head(lm, asked.head, n_head, batch, which)
        caches.append(cache)
        states.append(found[torch.arange(len(part)), last])
        ordered += [row for some in together for row in some]
        repeats += [len(some) for some in together]
    width = n_head + max(len(stem) for stem in stems)
    joined = join_caches(caches, width, width + max_new_tokens, repeats)
    lengths = torch.tensor([n_head + len(own[row]) - repeated for row in ordered], device=lm.device)
    mask = (torch.arange(width, device=lm.device)[None] < lengths[:, None]).long()
    running = _Running(torch.tensor(ordered), joined, mask, lengths, torch.cat(states))
    if repeated:
        _decode_step(lm, running, torch.tensor([own[row][-1] for row in ordered], device=lm.device), step=0)
    return running


def _decode_step(lm: LanguageModel, running: _Running, new: Tensor, step: int) -> None:
    """Feed one token a row, so that `running` predicts the next."""
    lm.cursor = Cursor(running.rows, torch.zeros_like(running.position), step)
    running.mask = torch.cat([running.mask, running.mask.new_ones(len(new), 1)], dim=1)
    output = lm.decoder(
        input_ids=new[:, None],
        attention_mask=running.mask,
        position_ids=running.position[:, None],
        past_key_values=running.cache,
        use_cache=True,
    )
    running.last = output.last_hidden_state[:, 0]
    running.position = running.position + 1
