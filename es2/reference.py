"""A parent's own answers and its cached states along them: what its children are held to.

The KL term needs no second model: the parent's post-norm final states are cached (d numbers a token instead of |V|)
and its logits are recomputed through the frozen norm and head (method.md section 4).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from es2.errors import UserError
from es2.examples import Example, load_states, save_states
from es2.files import read_jsonl, write_jsonl
from es2.generation import generate
from es2.models import LanguageModel


@dataclass(frozen=True)
class Reference:
    """A parent's answer to one prompt: tokens with the end token if it finished, verdict, cached states [t, d]."""

    prompt_id: str
    prompt_tokens: list[int]
    answer_tokens: list[int]
    verdict: str
    states: Tensor

    def example(self) -> Example:
        """The prompt with the parent's answer, to be held to the parent's logits."""
        return Example(self.prompt_id, self.prompt_tokens, self.answer_tokens, self.states)


def record(
    lm: LanguageModel,
    prompts: Mapping[str, str],
    judge: Callable[[str, str], str],
    max_new_tokens: int,
    batch_rows: int = 128,
    progress: Callable[[int], None] | None = None,
) -> list[Reference]:
    """Answer `prompts` {id: text} greedily, judge the answers, and cache the states along them.

    The states are those that wrote the answer: no second pass. An answer cut off by the token limit is not followed by
    an end-of-turn token.
    """
    sequences = lm.chat_tokens(list(prompts.values()))
    answers = generate(lm, sequences, max_new_tokens, batch_rows, progress, keep_states=True)
    end = lm.tokenizer.eos_token_id
    found = []
    for (prompt_id, prompt), tokens, answer in zip(prompts.items(), sequences, answers, strict=True):
        assert answer.states is not None
        written = [*answer.tokens, end] if answer.finished else answer.tokens
        found.append(Reference(prompt_id, tokens, written, judge(prompt, answer.text), answer.states))
    return found


def reference_prompts(prompts: pd.DataFrame, sets: Mapping[str, str], reference: Mapping[str, Any]) -> pd.DataFrame:
    """The prompts whose answers are recorded: all defence prompts of `sets` (children learn from them), and the first
    so many validation prompts of each set in `held_out`, test prompts of each set in `drift`, and attack prompts of
    each set in `targets` (attacks aim at the untrained model's answers)."""
    parts = [prompts[prompts["set"].isin(sets) & (prompts["split"] == "defence")]]
    splits = (("validation", "held_out"), ("test", "drift"), ("attack", "targets"))
    for split, wanted in ((split, reference[name]) for split, name in splits):
        for name, most in wanted.items():
            parts.append(prompts[(prompts["set"] == name) & (prompts["split"] == split)].head(most))
    return pd.concat(parts, ignore_index=True)


def of_prompts(references: Mapping[str, Reference], prompts: pd.DataFrame) -> list[Reference]:
    """The references of those `prompts` that have one, in table order."""
    return [references[prompt_id] for prompt_id in prompts["prompt_id"].unique() if prompt_id in references]


def save_references(answers: str | Path, states: str | Path, references: Sequence[Reference]) -> None:
    """Write answers and states, both readable by their owner only."""
    rows: list[dict[str, Any]] = [
        {
            "prompt_id": reference.prompt_id,
            "prompt_tokens": reference.prompt_tokens,
            "answer_tokens": reference.answer_tokens,
            "verdict": reference.verdict,
        }
        for reference in references
    ]
    save_states(states, [reference.prompt_id for reference in references], [one.states for one in references])
    write_jsonl(answers, rows, private=True)


def load_references(answers: str | Path, states: str | Path) -> dict[str, Reference]:
    """Read {prompt id: Reference}; UserError if the two files are not of one recording."""
    cached = load_states(states)
    rows = read_jsonl(answers)
    for row in rows:
        if len(cached.get(row["prompt_id"], ())) != len(row["answer_tokens"]):
            raise UserError(f"{states} does not belong to {answers}; delete both and run again")
    return {row["prompt_id"]: Reference(**row, states=cached[row["prompt_id"]]) for row in rows}


def compliant_answers(path: str | Path) -> dict[str, list[int]]:
    """{prompt id: tokens} of the recorded answers that comply."""
    return {row["prompt_id"]: row["answer_tokens"] for row in read_jsonl(path) if row["verdict"] == "compliance"}
