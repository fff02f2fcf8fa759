"""Asking again: what is sampled, and which answer the attacker keeps."""

import pytest
import torch
from conftest import PROMPTS

from es2.attacks import sampled
from es2.generation import generate

N_TOKENS = 6


def test_a_cold_sample_is_the_greedy_answer(load_model):
    lm = load_model()
    tokens = lm.chat_tokens(PROMPTS[:5])
    drawn = sampled.sample(lm, tokens, 2, 1e-4, N_TOKENS, 2, seed=0)
    greedy = generate(lm, tokens, N_TOKENS)
    for said, expected in zip(drawn, greedy, strict=True):
        assert [(one.tokens, one.text, one.finished) for one in said] == [
            (expected.tokens, expected.text, expected.finished)
        ] * 2


def test_samples_follow_the_models_softmax_and_the_seed(load_model):
    lm = load_model()
    tokens = lm.chat_tokens(PROMPTS[:1])
    drawn = sampled.sample(lm, tokens, 400, 1.0, 1, 1, seed=0)[0]
    with torch.no_grad():
        expected = torch.softmax(lm.model(input_ids=torch.tensor(tokens)).logits[0, -1].float(), dim=-1)
    ends = lm.end_tokens()
    first = torch.tensor([one.tokens[0] for one in drawn if one.tokens])
    ended = sum(not one.tokens for one in drawn) / 400
    assert ended == pytest.approx(sum(expected[end].item() for end in ends), abs=0.05)
    top = expected.argsort(descending=True)[:5]
    for token in top[[int(one) not in ends for one in top]]:
        assert (first == token).sum().item() / 400 == pytest.approx(expected[token].item(), abs=0.06)
    again = sampled.sample(lm, tokens, 400, 1.0, 1, 1, seed=0)[0]
    assert [one.tokens for one in again] == [one.tokens for one in drawn]
    apart = sampled.sample(lm, tokens, 400, 1.0, 1, 64, seed=0)[0]
    assert [one.tokens for one in apart] == [one.tokens for one in drawn]
    other = sampled.sample(lm, tokens, 400, 1.0, 1, 1, seed=1)[0]
    assert [one.tokens for one in other] != [one.tokens for one in drawn]


def test_a_number_finds_its_token_in_the_distribution_function():
    """Shares 0.2, 0, 0.8: numbers below 0.2 are the first token, no number is the second."""
    logits = torch.tensor([[0.2, 0.0, 0.8]]).log().repeat(4, 1)
    uniform = torch.tensor([[0.0], [0.19], [0.21], [1 - 1e-12]], dtype=torch.float64)
    assert sampled.Draws(uniform, 1.0).pick(logits, torch.arange(4), 0).tolist() == [0, 0, 2, 2]
    assert sampled.Draws(uniform, 0.01).pick(logits[:3], torch.arange(1, 4), 0).tolist() == [2, 2, 2]


def test_the_attacker_keeps_a_complying_answer_where_there_is_one(scene):
    said: list[str] = []

    def judge(prompt, answer):
        said.append(answer)
        return ("refusal", "compliance", "degenerate")[(len(said) - 1) % 5 % 3]

    evaluation = scene.evaluation(judge)
    attacked = sampled.evaluate(evaluation, {"samples": 3, "temperature": 1.0}, {})
    kept = [row for row in attacked.rows if row["control"] == ""]
    single = [row for row in attacked.rows if row["control"] == "single"]
    prompts = evaluation.prompts()
    assert len(kept) == len(prompts)
    assert [row["draw"] for row in single] == [draw for draw in range(3) for _ in range(len(prompts))]
    verdicts = [("refusal", "compliance", "degenerate")[place % 5 % 3] for place in range(len(said))]
    for place, row in enumerate(kept):
        mine = verdicts[3 * place : 3 * place + 3]
        wanted = next(name for name in sampled.PREFERRED if name in mine)
        assert row["answer"] == said[3 * place + mine.index(wanted)]
        assert row["prompt_id"] == prompts["prompt_id"][place]
        assert row["setting"] == "3 answers at temperature 1"
