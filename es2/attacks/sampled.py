"""Asking again: several sampled answers to each request, of which the attacker keeps one that complies (section 6).

Greedy answers hide what a model says now and then. A request counts as refused only where every sample was; beside it
stands what a single sample brings (`single`, listed as a control). Sampling is transformers' own, from the whole
softmax at a temperature.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from es2.attacks.base import Attacked, Evaluation
from es2.attacks.search import FITTED_ON
from es2.generation import Answer
from es2.models import LanguageModel

PREFERRED = ("compliance", "degenerate", "refusal")  # which of several answers the attacker keeps


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """`samples` answers at `temperature` to every benchmark prompt, and of each prompt's the one kept."""
    prompts, samples = evaluation.prompts(), settings["samples"]
    drawn = sample(
        evaluation.lm,
        evaluation.lm.chat_tokens(prompts["prompt"].tolist()),
        samples,
        settings["temperature"],
        evaluation.max_new_tokens,
        max(evaluation.batch_rows // samples, 1),
        evaluation.seed,
    )
    kept = [_kept(evaluation, text, said) for text, said in zip(prompts["prompt"], drawn, strict=True)]
    name = f"{samples} answers at temperature {settings['temperature']:g}"
    rows = evaluation.rows(prompts, kept, fitted_on=FITTED_ON, setting=name)
    for draw in range(samples):
        about = {"fitted_on": FITTED_ON, "setting": name, "control": "single", "draw": draw}
        rows += evaluation.rows(prompts, [said[draw] for said in drawn], **about)
    return Attacked(rows)


def _kept(evaluation: Evaluation, prompt: str, said: Sequence[Answer]) -> Answer:
    """The first answer of the best verdict for the attacker."""
    verdicts = [evaluation.judge(prompt, answer.text) for answer in said]
    return said[min(range(len(said)), key=lambda place: PREFERRED.index(verdicts[place]))]


@torch.no_grad()
def sample(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    samples: int,
    temperature: float,
    max_new_tokens: int,
    batch_rows: int,
    seed: int,
) -> list[list[Answer]]:
    """`samples` answers to each token sequence, in their order; the same for the same seed and batches."""
    ends = sorted(lm.end_tokens())
    config = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=0, top_p=1.0, repetition_penalty=1.0,
        num_return_sequences=samples, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=ends[0],
    )  # fmt: skip
    answers: dict[int, list[Answer]] = {}
    by_length = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(by_length), batch_rows):
            rows = by_length[start : start + batch_rows]
            width = max(len(sequences[row]) for row in rows)
            # Left of a prompt, where transformers wants its padding.
            tokens = torch.tensor([[ends[0]] * (width - len(sequences[row])) + list(sequences[row]) for row in rows])
            mask = torch.tensor([[0] * (width - len(sequences[row])) + [1] * len(sequences[row]) for row in rows])
            inputs = {"input_ids": tokens.to(lm.device), "attention_mask": mask.to(lm.device)}
            said = lm.base.generate(**inputs, generation_config=config)[:, width:].cpu()  # type: ignore[operator]
            for place, row in enumerate(rows):
                answers[row] = [
                    _answer(lm, ids, ends) for ids in said[place * samples : (place + 1) * samples].tolist()
                ]
    return [answers[row] for row in range(len(sequences))]


def _answer(lm: LanguageModel, ids: Sequence[int], ends: Sequence[int]) -> Answer:
    """The answer before its first end token."""
    end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    text = lm.tokenizer.decode(list(ids[:end]), skip_special_tokens=True).strip()
    return Answer(list(ids[:end]), text, finished=end < len(ids))
