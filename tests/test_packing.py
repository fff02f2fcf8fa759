"""Sequences end to end in one row: where each token lies, what each layer sees, and models that cannot take it."""

from copy import deepcopy

import pytest
import torch
from conftest import FAMILIES, PROMPTS
from oracles import add_random_lora

from es2.batching import shared_head
from es2.examples import Example, run_examples
from es2.models import LanguageModel
from es2.models import load_model as load
from es2.packing import ATTENTION, Whole, can_pack, lay_out, pack

OTHERS = {
    "qwen3": {"head_dim": 8},
    "phi3": {},
    "olmo2": {},
    "granite": {"logits_scaling": 3.0},
    "gemma2": {"head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 2.0},
    "gemma3_text": {"head_dim": 8, "sliding_window": 6},
}


def states_alone(lm, sequences, n_head):
    """Own tokens' final states of each sequence, end to end, one whole pass each."""
    return torch.cat([lm.decoder(input_ids=torch.tensor([ids])).last_hidden_state[0, n_head:] for ids in sequences])


def test_where_each_token_lies():
    packed = pack([[7, 8, 1, 2, 3], [7, 8, 4], [7, 8, 5, 6]], 2, torch.device("cpu"))
    assert packed.tokens.tolist() == [7, 8, 1, 2, 3, 4, 5, 6]
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 2, 2, 3]
    assert packed.spread.tolist() == [[0, 1, 2], [3, 3, 3], [4, 5, 4]]
    assert packed.places.tolist() == [0, 1, 2, 3, 6, 7]
    line, columns = packed.find(torch.tensor([0, 2, 1]), torch.tensor([1, 1, 0]))
    assert line.tolist() == [0, 0, 0]
    assert packed.tokens[columns].tolist() == [2, 6, 4]


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_states_are_those_of_whole_sequences(make_tiny, tmp_path, family, headless):
    """Of every family, packed or not: transformers' own forward pass of each sequence alone, its window and all."""
    lm = load(make_tiny(family, tmp_path, **OTHERS.get(family, {})), device="cpu")
    sequences = lm.chat_tokens(PROMPTS)
    if headless:
        sequences = [[place + 5, *ids] for place, ids in enumerate(sequences)]
    n_head = shared_head(sequences)
    assert (n_head == 0) == headless
    rows = torch.repeat_interleave(torch.arange(len(sequences)), torch.tensor([len(one) - n_head for one in sequences]))
    own = torch.cat([torch.arange(len(one) - n_head) for one in sequences])
    with torch.no_grad():
        expected = states_alone(lm, sequences, n_head)
        layout = lay_out(lm, sequences, n_head)
        found = layout.run(lm)[layout.find(rows, own)]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(states_alone(lm, sequences, n_head), expected)  # transformers' own is left as it is
    assert can_pack(lm) == (family != "gemma2")  # whose attention has a softcap, which no scaled dot product has


def test_a_layer_sees_no_padding_and_the_head_once(load_model):
    lm = load_model()
    examples = [Example(str(i), ids, [5, 6, 7][: i + 1]) for i, ids in enumerate(lm.chat_tokens(PROMPTS[:3]))]
    assert can_pack(lm)
    seen = []
    lm.blocks[1].mlp.register_forward_hook(lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape[:2])))
    run_examples(lm, examples)
    n_head = shared_head([one.prompt_tokens for one in examples])
    own = sum(len(one.prompt_tokens) - n_head + len(one.answer_tokens) - 1 for one in examples)
    assert n_head > 1
    assert seen == [(1, n_head + own)]


def mixes(lm):
    """A model with a block whose output at a token depends on the token before it in the row."""

    def hook(_module, _inputs, output):
        return output + 0.1 * torch.cat([torch.zeros_like(output[:, :1]), output[:, :-1]], dim=1)

    lm.blocks[0].register_forward_hook(hook)


def eager(lm):
    """A model with another attention."""
    lm.base.config._attn_implementation = "eager"


def strict(lm):
    """A model whose forward function takes no further arguments."""
    forward = lm.decoder.forward
    lm.decoder.forward = lambda input_ids, attention_mask=None, use_cache=None, position_ids=None: forward(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, position_ids=position_ids
    )


@pytest.mark.parametrize("spoil", [mixes, eager, strict])
def test_a_model_that_cannot_take_one_row_is_given_whole_sequences(load_model, spoil):
    lm = load_model()
    spoil(lm)
    before = lm.base.config._attn_implementation
    examples = [Example(str(i), ids, [5, 6, 7][: i + 1]) for i, ids in enumerate(lm.chat_tokens(PROMPTS[:3]))]
    with torch.no_grad():
        outputs = run_examples(lm, examples, [0, 2], whole=True)
        assert lm.packs is False
        assert lm.base.config._attn_implementation == before
        for row, example in enumerate(examples):
            ids = [*example.prompt_tokens, *example.answer_tokens[:-1]]
            expected = states_alone(lm, [ids], 0)
            n = len(example.answer_tokens)
            torch.testing.assert_close(outputs.final[outputs.rows == row], expected[-n:], atol=1e-5, rtol=1e-5)
            assert len(outputs.whole[row][0]) < len(ids)
    assert isinstance(lay_out(lm, [[5, 6], [5, 7]], 1), Whole)


def test_the_trial_leaves_no_trace(load_model):
    """No random number is drawn, the adapter's dropout stays on, and it is made once."""
    lm = add_random_lora(load_model(), dropout=0.5)
    lm.model.train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert can_pack(lm)
    assert torch.equal(torch.get_rng_state(), before)
    assert lm.model.training
    assert lm.base.config._attn_implementation == ATTENTION
    calls = []
    lm.decoder.register_forward_hook(lambda *_: calls.append(1))
    assert can_pack(lm)
    assert not calls
    assert can_pack(LanguageModel(deepcopy(lm.model), lm.tokenizer))  # whose config says so already
