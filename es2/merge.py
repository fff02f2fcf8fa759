"""The take-away model: a LoRA adapter folded into its base's weights, and the proof that it is the same model.

In float32, whatever precision the study runs in: half precision would round a part of the adapter away.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from es2.batching import pad_right, token_budget_batches
from es2.errors import UserError
from es2.files import read_json
from es2.generation import generate
from es2.models import TEMPLATE, LanguageModel, load_model


@dataclass(frozen=True)
class Behaviour:
    """What is compared: next-token logits [n, |V|] at the last prompt token, and the greedy answers' tokens."""

    logits: Tensor
    answers: list[list[int]]


def merge(base: str | Path, adapter: str | Path, folder: str | Path) -> None:
    """Save base + adapter in `folder` as one Hugging Face model: config, one safetensors file, tokenizer, generation
    config. Each file appears whole or not at all.
    """
    lm = load_model(base, adapter)
    with _filled_at_once(Path(folder)) as temporary:
        lm.model.save_pretrained(temporary, safe_serialization=True, max_shard_size="1TB")
        lm.tokenizer.save_pretrained(temporary)


def check(
    base: str | Path,
    adapter: str | Path,
    merged: str | Path,
    prompts: Sequence[str],
    *,
    tolerance: float = 1e-3,
    system_prompt: str = TEMPLATE,
    max_new_tokens: int = 32,
) -> dict[str, Any]:
    """Compare the merged folder, read again, with base + adapter not merged: the numbers for check.json.

    The largest difference of next-token logits must be at most `tolerance`, and greedy answers equal up to a first
    differing token where the merged model's two top logits lie within `tolerance` (a tie). The two models are in
    memory one after the other. Raises UserError if they differ by more.
    """
    separate = load_model(base, adapter, system_prompt=system_prompt, merge=False)
    wanted = behaviour(separate, prompts, max_new_tokens)
    del separate
    lm = load_model(merged, system_prompt=system_prompt)
    found = behaviour(lm, prompts, max_new_tokens)
    difference = float((wanted.logits - found.logits).abs().max())
    gaps = top_gaps(lm, prompts, wanted.answers, found.answers)
    ties = sum(gap < tolerance for gap in gaps)
    if not difference <= tolerance or ties < len(gaps):
        raise UserError(
            f"merge: the model merged from {adapter} does not behave as it did on its base: logits differ by "
            f"{difference:.2g} (merge.tolerance: {tolerance:g}), {len(gaps) - ties} of {len(prompts)} answers differ; "
            "run the merge again, or raise the tolerance"
        )
    return {
        "prompts": len(prompts),
        "tolerance": tolerance,
        "max_logit_difference": float(f"{difference:.3g}"),
        "answers_equal": len(prompts) - len(gaps),
        "answers_differing_at_a_tie": ties,
        "base": stated_base(adapter),
    }


def stated_base(adapter: str | Path) -> str:
    """The base that the adapter says it is relative to (`base_model_name_or_path`)."""
    return str(read_json(Path(adapter) / "adapter_config.json").get("base_model_name_or_path") or "")


def check_base(adapter: str | Path, expected: str) -> None:
    """Raise UserError unless the adapter states the shipped base, by the name that the study gives it."""
    if (stated := stated_base(adapter)) != expected:
        raise UserError(
            f"merge: the adapter in {adapter} is relative to {stated or 'a base it does not name'}, not to {expected}; "
            "train it again on this model"
        )


def choose_prompts(prompts: pd.DataFrame, n: int) -> list[str]:
    """The first `n` prompts in the order of their ids, which are hashes: a mixture of all sets and splits."""
    if prompts.empty:
        raise UserError("merge: there are no prompts to compare the merged model on; select a prompt set")
    return [str(prompt) for prompt in prompts.sort_values("prompt_id")["prompt"].head(n)]


def behaviour(lm: LanguageModel, prompts: Sequence[str], max_new_tokens: int) -> Behaviour:
    """Next-token logits and greedy answers of chat prompts."""
    sequences = lm.chat_tokens(prompts)
    answers = generate(lm, sequences, max_new_tokens)
    return Behaviour(next_token_logits(lm, sequences), [answer.tokens for answer in answers])


@torch.no_grad()
def next_token_logits(lm: LanguageModel, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Logits [n, |V|] after the last token of each sequence, float32 on the CPU."""
    logits: list[Tensor | None] = [None] * len(sequences)
    for rows in token_budget_batches([len(sequence) for sequence in sequences], 1 << 12, most=32):
        batch = pad_right([sequences[row] for row in rows], lm.device)
        states = lm.decoder(input_ids=batch.tokens, attention_mask=batch.mask, use_cache=False).last_hidden_state
        last = states[torch.arange(len(rows)), batch.lengths - 1]
        for row, values in zip(rows, lm.logits(last).float().cpu(), strict=True):
            logits[row] = values
    return torch.stack([values for values in logits if values is not None])


def top_gaps(
    lm: LanguageModel, prompts: Sequence[str], answers: Sequence[Sequence[int]], others: Sequence[Sequence[int]]
) -> list[float]:
    """Per pair of answers that differ: the difference of the two top logits at the first differing token."""
    shared = []
    for tokens, answer, other in zip(lm.chat_tokens(prompts), answers, others, strict=True):
        if list(answer) != list(other):
            pairs = enumerate(zip(answer, other, strict=False))
            differing = next((place for place, (one, two) in pairs if one != two), min(len(answer), len(other)))
            shared.append([*tokens, *answer[:differing]])
    if not shared:
        return []
    top = next_token_logits(lm, shared).topk(2, dim=-1).values
    return [float(gap) for gap in top[:, 0] - top[:, 1]]


@contextmanager
def _filled_at_once(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, whose files move there when the block ends without an error."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        folder.mkdir(exist_ok=True)
        for path in sorted(temporary.iterdir()):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
