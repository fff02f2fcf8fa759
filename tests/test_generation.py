"""Greedy answers against transformers' own generate, and edits against a naive recomputation without a cache."""

import pytest
import torch
from conftest import FAMILIES, PROMPTS
from oracles import answer, edited_answer, n_hooks

from es2.activations import edit_residual
from es2.batching import forward_after_head as forward
from es2.batching import shared_head
from es2.generation import generate, greedy

N = 12
# Rows a batch, and tokens read at once: prompts are read in several narrow batches whose caches are then joined.
BATCHES = ((1, 512), (3, 20), (64, 40), (64, 512))


def with_early_ends(lm, sequences):
    """Make a token an end token that some answers contain early, some late or never."""
    answers = [answer(lm, tokens, N)[0] for tokens in sequences]
    places = {
        token: [one.index(token) if token in one else N for one in answers]
        for token in sorted({token for one in answers for token in one})
    }
    ends = max(places, key=lambda token: (len(set(places[token])), -token))
    assert len(set(places[ends])) >= 3
    lm.base.generation_config.eos_token_id = [lm.tokenizer.eos_token_id, ends]
    return [len(one) for one in answers]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_transformers(load_model, monkeypatch, family):
    lm = load_model(family)
    sequences = lm.chat_tokens(PROMPTS)
    expected = [answer(lm, tokens, N) for tokens in sequences]
    assert len({tuple(tokens) for tokens, _ in expected}) > 3
    for rows, prefill in BATCHES:
        monkeypatch.setattr("es2.generation.PREFILL_TOKENS", prefill)
        found = generate(lm, sequences, N, rows)
        assert [(one.tokens, one.finished) for one in found] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_that_end_early(load_model, monkeypatch, family):
    lm = load_model(family)
    sequences = lm.chat_tokens(PROMPTS)
    with_early_ends(lm, sequences)
    expected = [answer(lm, tokens, N) for tokens in sequences]
    assert any(ended for _, ended in expected)
    for rows, prefill in BATCHES:
        monkeypatch.setattr("es2.generation.PREFILL_TOKENS", prefill)
        found = generate(lm, sequences, N, rows)
        assert [(one.tokens, one.finished) for one in found] == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("own_tokens", [1, 2, 100])
def test_a_prompt_in_several_rows_is_read_once_and_each_row_is_edited_apart(
    load_model, monkeypatch, family, own_tokens
):
    """`own_tokens`: how many of the first prompt's tokens the template's head does not cover, at most."""
    lm = load_model(family)
    prompts = lm.chat_tokens(PROMPTS[:4])
    prompts[0] = prompts[0][: shared_head(prompts) + own_tokens]
    sequences = [tokens for _ in range(3) for tokens in prompts] + [prompts[1]]
    with_early_ends(lm, lm.chat_tokens(PROMPTS))
    expected = [edited_answer(lm, tokens, 8, [0, 2], push, row) for row, tokens in enumerate(sequences)]
    assert len({tuple(one) for one in expected}) > len(prompts)
    read = []
    monkeypatch.setattr("es2.generation.forward_after_head", lambda *asked: read.append(asked[3]) or forward(*asked))
    for rows, prefill in BATCHES[1:]:
        monkeypatch.setattr("es2.generation.PREFILL_TOKENS", prefill)
        with edit_residual(lm, [0, 2], push):
            assert [one.tokens for one in generate(lm, sequences, 8, rows)] == expected
    assert sum(len(batch.lengths) for batch in read) < len(sequences) * len(BATCHES[1:])
    assert read[-1].lengths.sum() <= sum(map(len, prompts))


def test_an_end_at_the_limit_counts_as_finished_and_a_cut_answer_does_not(load_model):
    lm = load_model()
    sequences = lm.chat_tokens(PROMPTS)
    with_early_ends(lm, sequences)
    lengths = [(len(one.tokens), one.finished) for one in generate(lm, sequences, N)]
    length = min(length for length, ended in lengths if ended and length > 0)
    place = lengths.index((length, True))
    assert generate(lm, sequences, length + 1)[place].finished
    assert not generate(lm, sequences, length)[place].finished


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_states_are_those_of_the_whole_sequence(load_model, monkeypatch, family):
    """What wrote each token, and the end token, against one uncached pass over prompt and answer."""
    lm = load_model(family)
    sequences = lm.chat_tokens(PROMPTS)
    with_early_ends(lm, sequences)
    for rows, prefill in BATCHES:
        monkeypatch.setattr("es2.generation.PREFILL_TOKENS", prefill)
        answers = generate(lm, sequences, N, rows, keep_states=True)
        assert len({one.finished for one in answers}) == 2
        for tokens, one in zip(sequences, answers, strict=True):
            with torch.no_grad():
                whole = lm.decoder(input_ids=torch.tensor([[*tokens, *one.tokens]]), use_cache=False).last_hidden_state
            expected = whole[0, len(tokens) - 1 : len(tokens) - 1 + len(one.tokens) + one.finished]
            torch.testing.assert_close(one.states, expected, atol=1e-5, rtol=1e-5)
    assert all(one.states is None for one in generate(lm, sequences, 2))


def test_no_shared_head_one_prompt_and_no_prompt(load_model):
    lm = load_model()
    sequences = [[5 + place, *tokens] for place, tokens in enumerate(lm.chat_tokens(PROMPTS))]
    assert [one.tokens for one in generate(lm, sequences, N)] == [answer(lm, tokens, N)[0] for tokens in sequences]
    assert generate(lm, sequences[:1], N)[0].tokens == answer(lm, sequences[0], N)[0]
    assert generate(lm, [], N) == []


def test_text_is_the_decoded_answer_and_progress_counts_prompts(load_model):
    lm = load_model()
    done = []
    answers = generate(lm, lm.chat_tokens(PROMPTS), N, batch_rows=4, progress=done.append)
    assert sum(done) == len(PROMPTS)
    assert max(done) <= 4
    for one in answers:
        assert one.text == lm.tokenizer.decode(one.tokens, skip_special_tokens=True).strip()


def push(layer, states, rows, step):
    """An edit that depends on layer, row, step and state."""
    direction = torch.linspace(-1, 1, states.shape[-1])
    along = (states * direction).sum(dim=-1, keepdim=True)
    return states + (1.0 + 0.3 * rows[:, None] + 0.2 * step + layer - 0.2 * along) * direction


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ends", [False, True])
def test_edits_act_at_the_last_prompt_token_and_every_generated_one(load_model, monkeypatch, family, ends):
    lm = load_model(family)
    sequences = lm.chat_tokens(PROMPTS[:4])
    plain = [one.tokens for one in generate(lm, sequences, 8)]
    layers = [0, 2]
    if ends:
        edited = [edited_answer(lm, tokens, 8, layers, push, row) for row, tokens in enumerate(sequences)]
        lm.base.generation_config.eos_token_id = [1, edited[0][2]]
    expected = [edited_answer(lm, tokens, 8, layers, push, row) for row, tokens in enumerate(sequences)]
    assert expected != plain
    for rows, prefill in BATCHES:
        monkeypatch.setattr("es2.generation.PREFILL_TOKENS", prefill)
        with edit_residual(lm, layers, push):
            found = generate(lm, sequences, 8, rows)
        assert [one.tokens for one in found] == expected
    assert n_hooks(lm) == 0
    assert lm.cursor is None


def test_cursor_is_reset_after_an_exception(load_model):
    lm = load_model()

    def broken(layer, states, rows, step):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), edit_residual(lm, [1], broken):
        generate(lm, lm.chat_tokens(PROMPTS), 3)
    assert lm.cursor is None
    assert n_hooks(lm) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_greedy_token_is_the_first_of_the_likeliest(dtype):
    """bfloat16 has few values, so that ties abound; a token beyond the vocabulary's middle ties with one before."""
    logits = torch.randn(8, 4000, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[:, [17, 3000]] = 100.0
    assert greedy(logits, torch.arange(8), 0).tolist() == [17] * 8
    logits[:, [17, 3000]] = -100.0
    assert torch.equal(greedy(logits, torch.arange(8), 0), logits.argmax(dim=-1))
