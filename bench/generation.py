"""Greedy answers against `model.generate`, what SCAV's hooks add to our own generation, an attacker's search, and the
LM head."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from bench.measure import Comparison, UnequalError, expect_close_vectors
from bench.scene import SEED, Scene, chat_texts, study
from es2.attacks.ablation import ProjectionAttack
from es2.attacks.base import Applied
from es2.attacks.planes import PlaneAttack, random_directions
from es2.generation import generate
from es2.models import LanguageModel

BATCH = 8
SEARCHED, SETTINGS = 12, 12  # prompts of a search's first stage, settings that it tries on them
HEAD_ROWS, HEAD_TIMES = 64, 8  # a decoding step's states, and how often they go through the head
HEAD_APART = 1e-4  # of the logits' norm
GAP = 1e-3  # logits this close may swap under float32's rounding

Answers = list[list[int]]


@torch.no_grad()
def unsorted_batches(model: Any, tokenizer: Any, prompts: Sequence[str], n: int, ends: set[int]) -> Answers:
    """Anchor: answers in batches in the given order, padded on the left, tokens up to the end token."""
    tokenizer.padding_side = "left"
    texts, answers = chat_texts(tokenizer, prompts), []
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        inputs = tokenizer(part, add_special_tokens=False, padding=True, return_tensors="pt").to(model.device)
        written = model.generate(**inputs, do_sample=False, max_new_tokens=n, pad_token_id=tokenizer.pad_token_id)
        for tokens in written[:, inputs["input_ids"].shape[1] :].tolist():
            stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
            answers.append(tokens[:stop])
    return answers


def expect_same_answers(lm: LanguageModel, prompts: Sequence[str], found: Answers, expected: Answers) -> None:
    """UnequalError unless the answers are the same, token by token; one in a hundred (one at least) may differ, if
    where it first does the two tokens' logits, in a plain pass over what both wrote, are less than GAP apart."""
    different = [place for place, (mine, other) in enumerate(zip(found, expected, strict=True)) if mine != other]
    allowed = max(1, len(prompts) // 100)
    if len(different) > allowed:
        raise UnequalError(f"{len(different)} of {len(prompts)} answers differ, at most {allowed} may")
    for place in different:
        gap = _gap(lm, lm.chat_tokens([prompts[place]])[0], found[place], expected[place])
        if not gap < GAP:
            raise UnequalError(
                f"answer {place} differs where the two tokens' logits are {gap:.3g} apart, bound {GAP:g}"
            )


@torch.no_grad()
def _gap(lm: LanguageModel, prompt: list[int], found: list[int], expected: list[int]) -> float:
    """Logit of the likelier minus that of the other where two answers part; an answer that ended has an end token."""
    end = min(lm.end_tokens())
    mine, other = ([*tokens, end] for tokens in (found, expected))
    part = next(place for place, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b)
    tokens = torch.tensor([[*prompt, *mine[:part]]], device=lm.device)
    logits = lm.model(input_ids=tokens).logits[0, -1]
    return float((logits[mine[part]] - logits[other[part]]).abs())


def idle_attack(lm: LanguageModel, n: int, new_tokens: int) -> PlaneAttack:
    """SCAV's edit at every layer with its steps recorded, with planes that no state reaches: all of its work is done,
    and the answers stay those without it, so that they can be compared and are as long."""
    direction = random_directions(1, lm.n_layers, lm.width, SEED)
    target = torch.full((n, lm.n_layers), 1e9)
    return PlaneAttack(
        direction, torch.zeros(n, dtype=torch.long), target, torch.full((*target.shape, new_tokens), torch.nan)
    )


def comparisons(scene: Scene) -> Iterator[Comparison]:
    """es2.generation against transformers, and under SCAV against itself."""
    lm, prompts, n = scene.lm, scene.prompts(), scene.sizes.new_tokens
    rows = study()["generation"]["batch_rows"]
    attack = idle_attack(lm, len(prompts), n)

    def plain() -> Answers:
        return [one.tokens for one in generate(lm, lm.chat_tokens(prompts), n, rows)]

    def hooked() -> Answers:
        with attack.applied(lm):
            return plain()

    def check(found: Answers, expected: Answers) -> None:
        expect_same_answers(lm, prompts, found, expected)

    yield Comparison(
        "generation",
        f"unsorted_batches_of_{BATCH}",
        plain,
        lambda: unsorted_batches(lm.model, lm.tokenizer, prompts, n, lm.end_tokens()),
        check,
        scene.sizes.slow_repetitions,
    )
    yield Comparison("scav_generation", "plain_generation", hooked, plain, check, scene.sizes.repetitions, cost=True)
    yield _search(lm, prompts[:SEARCHED], n, rows, scene.sizes.slow_repetitions)
    yield _ablations(lm, prompts[:SEARCHED], n, rows, scene.sizes.slow_repetitions)
    yield _head(lm, scene.sizes.repetitions)


def _search(lm: LanguageModel, prompts: list[str], new_tokens: int, rows: int, repetitions: int) -> Comparison:
    """Answers to the same prompts under every setting of an attack: all in the same batches, as es2.attacks.search
    asks for them, against one setting after the other. The planes move nothing, so that both sides answer alike."""
    alone, together = (idle_attack(lm, len(prompts) * times, new_tokens) for times in (1, SETTINGS))
    return _settings("search", "one_setting_at_a_time", lm, prompts, together, alone, new_tokens, rows, repetitions)


def _ablations(lm: LanguageModel, prompts: list[str], new_tokens: int, rows: int, repetitions: int) -> Comparison:
    """Answers without each of several directions, each with its own run of the shared head, all in the same batches,
    against one direction after the other. The directions are zero, so that both sides answer alike."""
    groups = [row // len(prompts) for row in range(len(prompts) * SETTINGS)]
    alone, together = (ProjectionAttack(torch.zeros(*shape, lm.width)) for shape in ((), (len(groups),)))
    name = "one_direction_at_a_time"
    return _settings("ablations", name, lm, prompts, together, alone, new_tokens, rows, repetitions, groups)


def _settings(
    path: str,
    anchor: str,
    lm: LanguageModel,
    prompts: list[str],
    together: Applied,
    alone: Applied,
    new_tokens: int,
    rows: int,
    repetitions: int,
    groups: Sequence[int] | None = None,
) -> Comparison:
    """The prompts under SETTINGS settings in common batches (`together`) against one setting after the other."""
    asked, sequences = prompts * SETTINGS, lm.chat_tokens(prompts)

    def ours() -> Answers:
        with together.applied(lm):
            return [one.tokens for one in generate(lm, sequences * SETTINGS, new_tokens, rows, groups=groups)]

    def theirs() -> Answers:
        answers: Answers = []
        for _ in range(SETTINGS):
            with alone.applied(lm):
                answers += [one.tokens for one in generate(lm, sequences, new_tokens, rows)]
        return answers

    def check(found: Answers, expected: Answers) -> None:
        expect_same_answers(lm, asked, found, expected)

    return Comparison(path, anchor, ours, theirs, check, repetitions)


def _head(lm: LanguageModel, repetitions: int) -> Comparison:
    """A decoding step's states through the LM head, in pieces of the vocabulary, against one product with all of it."""
    generator = torch.Generator().manual_seed(SEED)
    states = torch.randn(HEAD_ROWS, lm.width, generator=generator).to(lm.device, lm.base.dtype)
    head = lm.base.get_output_embeddings()

    def ours() -> torch.Tensor:
        with torch.no_grad():
            return [lm.logits(states) for _ in range(HEAD_TIMES)][-1]

    def theirs() -> torch.Tensor:
        with torch.no_grad():
            return [head(states) for _ in range(HEAD_TIMES)][-1]

    def check(found: torch.Tensor, expected: torch.Tensor) -> None:
        expect_close_vectors("a state's logits", found, expected, HEAD_APART)

    return Comparison("head", "one_product", ours, theirs, check, repetitions)
