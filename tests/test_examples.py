"""Training passes over examples against whole unshared sequences, one at a time, and the parent's cached states."""

import pytest
import torch
from conftest import FAMILIES, PROMPTS
from oracles import add_random_lora, n_hooks, states_along
from torch.nn.functional import cross_entropy

from es2.embeddings import extract_tokens
from es2.errors import UserError
from es2.examples import Example, load_states, run_examples, save_states
from es2.reference import load_references, record, save_references

LAYERS = [0, 2]


def make_examples(lm, n=4):
    """Prompts of different lengths with answers of different lengths, one of a single token."""
    tokens = lm.chat_tokens(PROMPTS[:n])
    return [
        Example(str(place), ids, [(7 * place + 3 * step + 4) % 200 for step in range(1 + 2 * place)])
        for place, ids in enumerate(tokens)
    ]


def alone(lm, example):
    """Final states along the answer, residual stream at the last prompt token, logits: one whole sequence, no cache."""
    caught = {}
    handles = [
        lm.blocks[layer].register_forward_hook(
            lambda _module, _inputs, output, layer=layer: caught.update({layer: output})
        )
        for layer in LAYERS
    ]
    ids = torch.tensor([[*example.prompt_tokens, *example.answer_tokens[:-1]]])
    states = lm.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
    logits = lm.base(input_ids=ids, use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    start = len(example.prompt_tokens) - 1
    return states[start:], {layer: caught[layer][0, start] for layer in LAYERS}, logits[start:]


def toy_loss(logits, targets, residual):
    """Cross-entropy summed over tokens, and a term on the residual stream [m, d]."""
    return cross_entropy(logits, targets, reduction="sum") + residual.pow(2).sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_residual_equal_whole_sequences(load_model, family):
    lm = load_model(family)
    examples = make_examples(lm)
    with torch.no_grad():
        outputs = run_examples(lm, examples, LAYERS)
        embeddings = extract_tokens(lm, [example.prompt_tokens for example in examples])
        for place, example in enumerate(examples):
            final, residual, logits = alone(lm, example)
            found = outputs.final[outputs.rows == place]
            torch.testing.assert_close(found, final, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(lm.logits(found), logits, atol=1e-5, rtol=1e-5)
            assert outputs.targets[outputs.rows == place].tolist() == example.answer_tokens
            for layer in LAYERS:
                torch.testing.assert_close(outputs.residual[layer][place], residual[layer], atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(
                    outputs.residual[layer][place], embeddings[place, layer], atol=1e-5, rtol=1e-5
                )
    first = [0, *torch.tensor([len(example.answer_tokens) for example in examples]).cumsum(0)[:-1].tolist()]
    assert torch.nonzero(outputs.first).squeeze(1).tolist() == first
    assert n_hooks(lm) == 0
    assert lm.cursor is None


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_whole_sequences(load_model, family):
    lm = add_random_lora(load_model(family))
    examples = make_examples(lm)
    outputs = run_examples(lm, examples, LAYERS)
    residual = torch.stack([outputs.residual[layer] for layer in LAYERS])
    loss = toy_loss(lm.logits(outputs.final), outputs.targets, residual)
    loss.backward()
    parameters = {name: value for name, value in lm.model.named_parameters() if value.requires_grad}
    found = {name: value.grad.clone() for name, value in parameters.items()}
    lm.model.zero_grad()
    total = 0.0
    for example in examples:
        _, residual, logits = alone(lm, example)
        one = toy_loss(logits, torch.tensor(example.answer_tokens), torch.stack(list(residual.values())))
        one.backward()
        total += one.item()
    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert len(parameters) >= 2 * 7 * 3
    for name, value in parameters.items():
        scale = value.grad.abs().max()
        assert scale > 0
        assert (found[name] - value.grad).abs().max() < 1e-4 * scale, name


def test_prompts_that_are_all_alike_keep_a_token_of_their_own(load_model):
    lm = load_model()
    prompt = lm.chat_tokens(PROMPTS[:1])[0]
    examples = [Example("a", prompt, [5, 6]), Example("b", prompt, [7])]
    with torch.no_grad():
        outputs = run_examples(lm, examples, LAYERS)
        for place, example in enumerate(examples):
            final, residual, _ = alone(lm, example)
            torch.testing.assert_close(outputs.final[outputs.rows == place], final, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(outputs.residual[2][place], residual[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_states_are_those_of_a_plain_pass(load_model, family):
    lm = load_model(family)
    tokens = lm.chat_tokens(PROMPTS[:4])
    examples = [Example(str(i), ids, [5, 6, 7, 8][: i + 1]) for i, ids in enumerate(tokens)]
    with torch.no_grad():
        outputs = run_examples(lm, examples, [0, 2], whole=True)
        at_prompt = run_examples(lm, examples, [0, 2]).residual
        for row, example in enumerate(examples):
            for layer in (0, 2):
                expected = states_along(lm, example, layer)
                own = outputs.whole[row][layer]
                assert 0 < len(own) < len(expected)
                torch.testing.assert_close(own, expected[-len(own) :], atol=1e-4, rtol=1e-4)
    for layer in (0, 2):
        torch.testing.assert_close(outputs.residual[layer], at_prompt[layer])


def test_an_edit_of_training_acts_where_the_answer_is_predicted(load_model):
    lm = load_model()
    examples = [Example(str(i), ids, [5, 6, 7][: i + 1]) for i, ids in enumerate(lm.chat_tokens(PROMPTS[:3]))]

    def edit(layer, found, rows, step):
        return found + (1.0 + rows)[:, None]

    with torch.no_grad():
        plain = run_examples(lm, examples, [1], whole=True)
        moved = run_examples(lm, examples, [1], whole=True, edit=edit, edited=[1])
    for row, example in enumerate(examples):
        change = moved.whole[row][1] - plain.whole[row][1]
        n = len(example.answer_tokens)
        torch.testing.assert_close(change[-n:], torch.full_like(change[-n:], 1.0 + row), atol=1e-5, rtol=1e-4)
        assert change[:-n].abs().max() == 0
    assert (moved.final - plain.final).abs().max() > 0.01


def test_states_file_round_trip(tmp_path):
    states = [torch.randn(3, 4), torch.randn(1, 4)]
    save_states(tmp_path / "s.safetensors", ["b", "a"], states)
    loaded = load_states(tmp_path / "s.safetensors")
    assert list(loaded) == ["b", "a"]
    assert torch.equal(loaded["b"], states[0])
    assert torch.equal(loaded["a"], states[1])


def test_references_are_the_models_answers_and_states(load_model, tmp_path):
    lm = load_model()
    plain = record(lm, {"x": PROMPTS[0]}, lambda prompt, answer: "compliance", 6)[0]
    lm.base.generation_config.eos_token_id = [1, plain.answer_tokens[3]]
    asked = []

    def judge(prompt, answer):
        asked.append((prompt, answer))
        return "refusal" if prompt == PROMPTS[0] else "compliance"

    references = record(lm, {str(place): text for place, text in enumerate(PROMPTS)}, judge, 6)
    assert [one.verdict for one in references] == ["refusal"] + ["compliance"] * 5
    assert [prompt for prompt, _ in asked] == list(PROMPTS)
    ended = [one for one in references if one.answer_tokens[-1] == lm.tokenizer.eos_token_id]
    assert references[0] in ended
    assert len(ended) < 6
    for one in references:
        assert one in ended or len(one.answer_tokens) == 6
        with torch.no_grad():
            torch.testing.assert_close(one.states, alone(lm, one.example())[0], atol=1e-5, rtol=1e-5)
            # The cached states predict the answer: its tokens are the greedy choice at each of them.
            greedy = lm.logits(one.states).argmax(dim=-1).tolist()
        n_own = len(one.answer_tokens) - (one in ended)
        assert greedy[:n_own] == one.answer_tokens[:n_own]
    answers, states = tmp_path / "answers.jsonl", tmp_path / "states.safetensors"
    save_references(answers, states, references)
    assert answers.stat().st_mode & 0o777 == states.stat().st_mode & 0o777 == 0o600
    loaded = load_references(answers, states)
    assert list(loaded) == [str(place) for place in range(6)]
    assert torch.equal(loaded["3"].states, references[3].states)
    assert loaded["3"].answer_tokens == references[3].answer_tokens
    save_states(states, ["0"], [torch.zeros(1, 32)])
    with pytest.raises(UserError, match="does not belong to"):
        load_references(answers, states)
