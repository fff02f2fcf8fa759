"""Training examples: a prompt's tokens, an answer's tokens, and the parent's cached states along the answer."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from es2.activations import record_residual
from es2.batching import forward_after_head, pad_right, run_head, shared_head
from es2.files import atomic_write
from es2.models import Cursor, LanguageModel


@dataclass(frozen=True)
class Example:
    """A prompt in its chat template and the answer tokens [t] that the loss looks at.

    `states` [t, d] are the parent's post-norm final states at the positions that predict the answer tokens.
    """

    prompt_id: str
    prompt_tokens: list[int]
    answer_tokens: list[int]
    states: Tensor | None = None


@dataclass(frozen=True)
class Outputs:
    """What one forward pass gives: residual stream at the last prompt token {layer: [b, d]}, and at the positions
    that predict answer tokens the post-norm final states [t, d], their example's index [t], and the tokens [t]."""

    residual: dict[int, Tensor]
    final: Tensor
    rows: Tensor
    targets: Tensor
    first: Tensor


def run_examples(lm: LanguageModel, examples: Sequence[Example], layers: Sequence[int] = ()) -> Outputs:
    """One forward pass over examples: dynamic padding, the shared head once, LM head left to the caller.

    Gradients flow through the head's keys and values too, so this equals running each example whole.
    """
    whole = [[*example.prompt_tokens, *example.answer_tokens[:-1]] for example in examples]
    n_head = shared_head([example.prompt_tokens for example in examples])
    batch = pad_right([tokens[n_head:] for tokens in whole], lm.device)
    starts = [len(example.prompt_tokens) - n_head - 1 for example in examples]
    head = run_head(lm, whole[0][:n_head])
    with record_residual(lm, layers) as recorded:
        with lm.looking_at(Cursor(torch.arange(len(examples)), torch.tensor(starts, device=lm.device))):
            states, _ = forward_after_head(lm, head, n_head, batch)
    lengths = [len(example.answer_tokens) for example in examples]
    rows = torch.repeat_interleave(torch.arange(len(examples)), torch.tensor(lengths))
    columns = torch.cat([torch.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)])
    first = torch.cat([torch.arange(n) for n in lengths]) == 0
    targets = torch.tensor([token for example in examples for token in example.answer_tokens], device=lm.device)
    return Outputs(dict(recorded), states[rows, columns], rows, targets, first)


def save_states(path: str | Path, prompt_ids: Iterable[str], states: Sequence[Tensor]) -> None:
    """Write cached states end to end as one tensor [sum t, d], with ids and lengths in the header."""
    about = {
        "prompt_ids": json.dumps(list(prompt_ids)),
        "lengths": json.dumps([len(part) for part in states]),
    }
    with atomic_write(path) as temporary:
        save_file({"states": torch.cat(list(states))}, str(temporary), metadata=about)


def load_states(path: str | Path) -> dict[str, Tensor]:
    """Cached states {prompt id: [t, d]}."""
    with safe_open(str(path), framework="pt") as stream:
        about = stream.metadata()
        parts = torch.split(stream.get_tensor("states"), json.loads(about["lengths"]))
        return dict(zip(json.loads(about["prompt_ids"]), parts, strict=True))
