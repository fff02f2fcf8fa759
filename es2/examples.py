"""Training examples: a prompt's tokens, an answer's tokens, and the parent's cached states along the answer."""

import json
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from es2.activations import Edit, edit_residual, record_residual
from es2.batching import forward_after_head, forward_whole, pad_right, run_head, shared_head
from es2.models import Cursor, LanguageModel
from es2.tensors import write_tensors


@dataclass(frozen=True)
class Example:
    """A prompt in its chat template and the answer tokens [t] that the loss looks at.

    `states` [t, d] are the parent's post-norm final states at the positions that predict the answer tokens. `role` is
    what a method wants of the example, where it wants more than one thing.
    """

    prompt_id: str
    prompt_tokens: list[int]
    answer_tokens: list[int]
    states: Tensor | None = None
    role: str = ""


@dataclass(frozen=True)
class Outputs:
    """What one forward pass gives: residual stream at the last prompt token {layer: [b, d]}, and at the positions
    that predict answer tokens the post-norm final states [t, d], their example's index [t], and the tokens [t].

    `whole`, where it was asked for: each example's residual stream {layer: [t_i, d]} at all its tokens after the head
    that the batch shares, but for the last of the answer.
    """

    residual: dict[int, Tensor]
    final: Tensor
    rows: Tensor
    targets: Tensor
    first: Tensor
    whole: list[dict[int, Tensor]] = field(default_factory=list)


def run_examples(
    lm: LanguageModel,
    examples: Sequence[Example],
    layers: Sequence[int] = (),
    *,
    whole: bool = False,
    edit: Edit | None = None,
    edited: Sequence[int] = (),
) -> Outputs:
    """One forward pass over examples: dynamic padding, the shared head once, LM head left to the caller.

    Gradients flow through the head's keys and values too, so this equals running each example whole. Under gradient
    checkpointing that is what is done, for a block that runs again would fill the head's cache again. `edit` acts on
    the layers `edited` at every position that predicts an answer token, as an attack on the answer would.
    """
    tokens = [[*example.prompt_tokens, *example.answer_tokens[:-1]] for example in examples]
    n_shared = shared_head([example.prompt_tokens for example in examples])
    run_again = lm.checkpointed and torch.is_grad_enabled()
    n_head = 0 if run_again else n_shared
    batch = pad_right([ids[n_head:] for ids in tokens], lm.device)
    starts = [len(example.prompt_tokens) - n_head - 1 for example in examples]
    lengths = [len(example.answer_tokens) for example in examples]
    rows = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(lengths))
    columns = torch.cat([torch.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)])
    head = None if run_again else run_head(lm, tokens[0][:n_head])
    with (
        edit_residual(lm, edited, edit, (rows, columns)) if edit is not None else nullcontext(),
        record_residual(lm, layers, whole) as recorded,
        lm.looking_at(Cursor(torch.arange(len(examples)), torch.tensor(starts, device=lm.device))),
    ):
        states = forward_whole(lm, batch) if head is None else forward_after_head(lm, head, n_head, batch)[0]
    first = torch.cat([torch.arange(n) for n in lengths]) == 0
    targets = torch.tensor([token for example in examples for token in example.answer_tokens], device=lm.device)
    own: list[dict[int, Tensor]] = []
    if whole:
        skipped = n_shared - n_head
        own = [{k: recorded[k][row, skipped:n] for k in layers} for row, n in enumerate(batch.lengths.tolist())]
        recorded = {k: recorded[k][torch.arange(len(examples)), starts] for k in layers}
    return Outputs(dict(recorded), states[rows, columns], rows, targets, first, own)


def save_states(path: str | Path, prompt_ids: Iterable[str], states: Sequence[Tensor]) -> None:
    """Write cached states end to end as one tensor [sum t, d], with ids and lengths in the header."""
    about = {
        "prompt_ids": json.dumps(list(prompt_ids)),
        "lengths": json.dumps([len(part) for part in states]),
    }
    write_tensors(path, {"states": torch.cat(list(states))}, about)


def load_states(path: str | Path) -> dict[str, Tensor]:
    """Cached states {prompt id: [t, d]}."""
    with safe_open(str(path), framework="pt") as stream:
        about = stream.metadata()
        parts = torch.split(stream.get_tensor("states"), json.loads(about["lengths"]))
        return dict(zip(json.loads(about["prompt_ids"]), parts, strict=True))
