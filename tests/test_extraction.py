"""Extraction against plain transformers, one prompt at a time (method.md section 2)."""

import pytest
import torch
from conftest import FAMILIES, PROMPTS
from oracles import n_hooks, residuals

from es2.activations import edit_residual, record_residual
from es2.batching import even_budget, pad_right, shared_head, token_budget_batches
from es2.embeddings import (
    Embeddings,
    extract,
    extract_pieces,
    extract_tokens,
    load_embeddings,
    save_embeddings,
)
from es2.errors import UserError
from es2.models import Cursor
from es2.packing import can_pack


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pad", ["none", "left", "right"])
def test_extraction_is_one_prompt_at_a_time(load_model, family, pad):
    lm = load_model(family)
    expected = torch.stack([residuals(lm, tokens, pad) for tokens in lm.chat_tokens(PROMPTS)])
    assert expected.std() > 0.1
    close(extract(lm, PROMPTS), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_last_layer_is_before_the_final_norm(load_model, family):
    lm = load_model(family)
    tokens = lm.chat_tokens(PROMPTS[:1])[0]
    last = extract(lm, PROMPTS[:1])[0, -1]
    post_norm = lm.base(input_ids=torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1][0, -1]
    close(lm.decoder.norm(last), post_norm)
    assert (last - post_norm).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_any_batch_budget_and_no_shared_head(load_model, family, budget):
    lm = load_model(family, system_prompt="You are a helpful assistant.")
    alike = lm.chat_tokens(PROMPTS)
    differing = [[5 + place, *tokens] for place, tokens in enumerate(alike)]
    assert shared_head(alike) > 10
    assert shared_head(differing) == 0
    for sequences in (alike, differing):
        close(extract_tokens(lm, sequences, budget), torch.stack([residuals(lm, one) for one in sequences]))


def test_order_of_prompts_is_kept(load_model):
    lm = load_model()
    close(extract(lm, PROMPTS[::-1]), extract(lm, PROMPTS).flip(0))


def test_one_prompt_identical_prompts_and_none(load_model):
    lm = load_model()
    alone = residuals(lm, lm.chat_tokens(PROMPTS[1:2])[0])
    close(extract(lm, PROMPTS[1:2]), alone[None])
    close(extract(lm, [PROMPTS[1]] * 3), alone.expand(3, -1, -1))
    close(extract_tokens(lm, [[7]]), residuals(lm, [7])[None])
    assert extract(lm, []).shape == (0, 4, 32)


def test_one_prompt_that_begins_another(load_model):
    lm = load_model()
    sequences = [[7, 8], [7, 8, 9, 10]]
    close(extract_tokens(lm, sequences), torch.stack([residuals(lm, one) for one in sequences]))


@pytest.mark.parametrize("system_prompt", ["template", "none", "You are terse."])
def test_system_prompt_variants(load_model, system_prompt):
    lm = load_model(system_prompt=system_prompt)
    close(extract(lm, PROMPTS), torch.stack([residuals(lm, tokens) for tokens in lm.chat_tokens(PROMPTS)]))


def test_system_prompt_moves_the_embeddings(load_model):
    moved = extract(load_model(system_prompt="You are terse."), PROMPTS) - extract(load_model(), PROMPTS)
    assert moved.abs().max() > 0.01


def test_a_batch_is_one_row_with_the_head_once_and_within_the_budget(load_model):
    lm = load_model()
    sequences = lm.chat_tokens(PROMPTS)
    head = shared_head(sequences)
    assert can_pack(lm)
    seen = []
    lm.blocks[0].register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[:2]))
    extract(lm, PROMPTS, batch_tokens=60)
    assert len(seen) > 2
    assert {rows for rows, _ in seen} == {1}
    assert max(width for _, width in seen) <= head + 60
    assert sum(width - head for _, width in seen) == sum(len(one) - head for one in sequences)


def test_hooks_and_cursor_are_removed(load_model):
    lm = load_model()
    extract(lm, PROMPTS)
    assert n_hooks(lm) == 0
    assert lm.cursor is None


def test_hooks_and_cursor_are_removed_after_an_exception(load_model):
    lm = load_model()
    with pytest.raises(IndexError):
        extract_tokens(lm, [[1, 2, 10_000], [1, 2, 3]])
    assert n_hooks(lm) == 0
    assert lm.cursor is None
    with pytest.raises(ZeroDivisionError), record_residual(lm, [0, 1]), edit_residual(lm, [2], lambda *_: None):
        assert n_hooks(lm) / 0 == 3
    with record_residual(lm, [0, 1]), edit_residual(lm, [2], lambda *_: None):
        assert n_hooks(lm) == 3
    assert n_hooks(lm) == 0
    with pytest.raises(IndexError), record_residual(lm, [0, 99]):
        pass
    assert n_hooks(lm) == 0


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_mlp_runs_once_a_prompt_and_is_whole_again_afterwards(load_model, family, packs):
    lm = load_model(family)
    expected = extract(lm, PROMPTS)
    lm.packs = packs
    seen = []
    handle = lm.blocks[-1].mlp.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape[:2]))
    torch.testing.assert_close(extract(lm, PROMPTS, batch_tokens=60), expected, atol=1e-4, rtol=1e-4)
    assert len(seen) > 2
    assert {rows for rows, _ in seen} == {1}
    assert sum(columns for _, columns in seen) == len(PROMPTS)
    lm.base(input_ids=torch.tensor([[1, 2, 3]]))
    handle.remove()
    assert seen[-1][1] == 3


def test_an_edit_acts_at_the_cursor_alone(load_model):
    lm = load_model()
    tokens = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])

    def after_block_1():
        caught = []
        handle = lm.blocks[1].register_forward_hook(lambda _module, _inputs, output: caught.append(output))
        lm.decoder(input_ids=tokens)
        handle.remove()
        return caught[0].detach()

    plain = after_block_1()
    with edit_residual(lm, [1], lambda layer, states, rows, step: states + 100 * rows[:, None] + layer):
        assert torch.equal(after_block_1(), plain)
        with lm.looking_at(Cursor(torch.tensor([3, 4]), torch.tensor([1, 3]))):
            moved = after_block_1() - plain
    torch.testing.assert_close(moved[0, 1], torch.full((32,), 301.0))
    torch.testing.assert_close(moved[1, 3], torch.full((32,), 401.0))
    moved[0, 1] = moved[1, 3] = 0
    assert moved.abs().max() == 0


def test_batches_cover_every_row_once_longest_first():
    lengths = [3, 9, 1, 9, 4, 4, 30]
    batches = list(token_budget_batches(lengths, 18, most=3))
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    assert [max(lengths[row] for row in batch) for batch in batches] == [30, 9, 4, 1]
    assert all(len(batch) <= 3 for batch in batches)
    assert list(token_budget_batches([], 10, most=5)) == []


@pytest.mark.parametrize(("lengths", "budget"), [([4] * 9, 16), (list(range(3, 40)), 64), ([30, 2, 2], 8), ([5], 9)])
def test_an_even_budget_is_the_smallest_with_as_many_batches(lengths, budget):
    def batches(tokens):
        return len(list(token_budget_batches(lengths, tokens, most=len(lengths))))

    even = even_budget(lengths, budget)
    assert batches(even) == batches(budget)
    assert even <= max(budget, max(lengths))
    assert all(batches(smaller) > batches(even) for smaller in range(max(lengths), even))


def test_an_even_budget_leaves_no_small_batch():
    batches = list(token_budget_batches([4] * 9, even_budget([4] * 9, 16), most=9))
    assert [len(rows) for rows in batches] == [3, 3, 3]
    assert even_budget([], 16) <= 16


def test_a_row_that_would_be_mostly_padding_begins_a_new_batch():
    lengths = [10, 30, 100, 55, 61, 29, 60]
    batches = list(token_budget_batches(lengths, 10_000, most=5, shortest=0.6))
    assert batches == [[2, 4, 6], [3], [1, 5], [0]]
    assert list(token_budget_batches(lengths, 10_000, most=9)) == [[2, 4, 6, 3, 1, 5, 0]]


def test_shared_head_leaves_each_sequence_a_token():
    assert shared_head([]) == 0
    assert shared_head([[1, 2, 3]]) == 2
    assert shared_head([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_head([[1, 2], [1, 2, 3], [1, 2, 4]]) == 1
    assert shared_head([[1, 2], [3, 2]]) == 0


def test_padding_is_right_and_masked():
    padded = pad_right([[5, 6, 7], [8]], torch.device("cpu"))
    assert padded.tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert padded.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert padded.lengths.tolist() == [3, 1]


@pytest.mark.parametrize("piece", [1, 4, 100])
def test_pieces_hold_so_many_prompts_and_are_the_whole(load_model, piece):
    lm = load_model()
    pieces = list(extract_pieces(lm, PROMPTS, piece=piece))
    assert [len(one) for one in pieces[:-1]] == [piece] * (len(pieces) - 1)
    assert len(pieces) == -(-len(PROMPTS) // piece)
    close(torch.cat(pieces), extract(lm, PROMPTS))


def test_no_prompts_are_one_empty_piece(load_model, tmp_path):
    save_embeddings(tmp_path / "e.safetensors", [], extract_pieces(load_model(), []))
    assert load_embeddings(tmp_path / "e.safetensors").values.shape == (0, 4, 32)


def test_embeddings_file_round_trip_and_lookup(tmp_path):
    embeddings = Embeddings(["a", "b", "c"], torch.randn(3, 2, 4))
    save_embeddings(tmp_path / "e.safetensors", embeddings.prompt_ids, embeddings.values.split(2), run="es2")
    loaded = load_embeddings(tmp_path / "e.safetensors")
    assert loaded.prompt_ids == ["a", "b", "c"]
    assert torch.equal(loaded.values, embeddings.values)
    assert torch.equal(loaded.of(["c", "a"]), embeddings.values[[2, 0]])
    with pytest.raises(UserError, match="2 prompts have none"):
        loaded.of(["x", "a", "y"])
