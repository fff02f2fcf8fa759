"""Training examples: a prompt's tokens, an answer's tokens, and the parent's cached states along the answer."""

import json
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from es2.activations import Edit, Places, edit_residual, record_residual
from es2.batching import shared_head
from es2.models import Cursor, LanguageModel
from es2.packing import lay_out
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
    """One forward pass over examples, LM head left to the caller.

    They lie end to end in one row with the head that their prompts share run once (es2.packing), or where the model
    cannot take that, whole and side by side. `edit` acts on the layers `edited` at every position that predicts an
    answer token, as an attack on the answer would.
    """
    tokens = [[*example.prompt_tokens, *example.answer_tokens[:-1]] for example in examples]
    n_head = shared_head([example.prompt_tokens for example in examples])
    layout = lay_out(lm, tokens, n_head)
    every = torch.arange(len(examples))
    starts = torch.tensor([len(example.prompt_tokens) - n_head - 1 for example in examples])
    lengths = torch.tensor([len(example.answer_tokens) for example in examples])
    rows = torch.repeat_interleave(every, lengths)
    step = torch.cat([torch.arange(n) for n in lengths.tolist()])
    answers, prompts = layout.find(rows, starts[rows] + step), layout.find(every, starts)
    with (
        edit_residual(lm, edited, edit, Places(answers, rows)) if edit is not None else nullcontext(),
        record_residual(lm, layers, whole) as recorded,
        lm.looking_at(Cursor(every, prompts[1].to(lm.device))),
    ):
        states = layout.run(lm)
    targets = torch.tensor([token for example in examples for token in example.answer_tokens], device=lm.device)
    own: list[dict[int, Tensor]] = []
    if whole:
        for row, ids in enumerate(tokens):
            line, columns = layout.find(torch.tensor([row]), torch.tensor([0, len(ids) - n_head - 1]))
            own.append({k: recorded[k][line[0], columns[0] : columns[1] + 1] for k in layers})
        recorded = {k: recorded[k][prompts] for k in layers}
    return Outputs(dict(recorded), states[answers], rows, targets, step == 0, own)


def put_together(parts: Sequence[Outputs], places: Sequence[Sequence[int]]) -> Outputs:
    """What passes over parts of a batch give, as one pass over all would: `places` are each part's examples in the
    batch. The residual stream is left out."""
    rows = torch.cat([torch.tensor(list(where))[part.rows] for part, where in zip(parts, places, strict=True)])
    order = torch.argsort(rows, stable=True)
    final, targets, first = (
        torch.cat([getattr(part, name) for part in parts])[order] for name in ("final", "targets", "first")
    )
    return Outputs({}, final, rows[order], targets, first)


def save_states(path: str | Path, prompt_ids: Iterable[str], states: Sequence[Tensor]) -> None:
    """Write cached states end to end as one tensor [sum t, d], with ids and lengths in the header; readable by their
    owner only, for through the LM head they give back the answers."""
    about = {
        "prompt_ids": json.dumps(list(prompt_ids)),
        "lengths": json.dumps([len(part) for part in states]),
    }
    write_tensors(path, {"states": torch.cat(list(states))}, about, private=True)


def load_states(path: str | Path) -> dict[str, Tensor]:
    """Cached states {prompt id: [t, d]}."""
    with safe_open(str(path), framework="pt") as stream:
        about = stream.metadata()
        parts = torch.split(stream.get_tensor("states"), json.loads(about["lengths"]))
        return dict(zip(json.loads(about["prompt_ids"]), parts, strict=True))
