"""Gradient checkpointing: the same states and gradients, with less kept for the backward pass."""

import pytest
import torch
from training_bench import SETTINGS, drawn_examples, learner_of, moved

from es2.checkpoints import trainable
from es2.examples import Example, run_examples
from es2.registry import EXTERNAL, METHODS, UNTRAINED
from es2.training import add_lora

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}


def adapted(lm):
    """A model with an adapter that has moved, in training."""
    add_lora(lm, LORA, 0)
    moved(lm).model.train()
    return lm


def gradients(lm, loss):
    """The gradient of a loss to every adapter weight."""
    lm.model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in trainable(lm.model).items() if weight.grad is not None}


def assert_same(found, expected):
    """Each gradient within rounding of the other's largest entry, and none of zeros."""
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        bound = 1e-4 * gradient.abs().max().item()
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-4, atol=bound, msg=lambda said, name=name: f"{name}: {said}"
        )


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {UNTRAINED, EXTERNAL}))
def test_loss_and_gradient_of_every_method_are_the_same(bench, name):
    """Among them one that edits states, one that reads all tokens, and one that reads the parent's states."""

    def step(checkpointed):
        lm = bench.load()
        add_lora(lm, LORA, 0)
        weight = 0.0 if name in ("adversarial", "hold") else 1.0
        learner = learner_of(bench, name, separation={**SETTINGS["separation"], "weight": weight})
        (examples,) = drawn_examples(bench, learner, lm)
        moved(lm).model.train()  # a distance of nothing to the parent would have no gradient
        if checkpointed:
            lm.checkpoint_blocks()
        learner.begin(lm, 1, 6)
        loss = learner.loss(lm, examples, learner.run(lm, examples)).total
        return loss.detach(), gradients(lm, loss)

    (loss, found), (expected_loss, expected) = step(True), step(False)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-6)
    assert_same(found, expected)


@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma"])
def test_states_and_gradients_of_every_family(load_model, family, headless):
    """With the template's head in common, and with nothing in common."""
    lm = adapted(load_model(family))
    tokens = lm.chat_tokens(["Bake bread", "How do I write a letter to the council?", "Hi"])
    if headless:
        tokens = [[place + 5, *ids] for place, ids in enumerate(tokens)]
    examples = [Example(str(place), ids, [5, 9, 7][: place + 1]) for place, ids in enumerate(tokens)]

    def passed():
        outputs = run_examples(lm, examples, [0, 2])
        loss = outputs.final.pow(2).mean() + sum(states.sin().mean() for states in outputs.residual.values())
        return outputs, gradients(lm, loss)

    plain, expected = passed()
    lm.checkpoint_blocks()
    outputs, found = passed()
    torch.testing.assert_close(outputs.final, plain.final, rtol=1e-4, atol=1e-5)
    for layer, states in plain.residual.items():
        torch.testing.assert_close(outputs.residual[layer], states, rtol=1e-4, atol=1e-5)
    assert_same(found, expected)


def test_less_is_kept_for_the_backward_pass(bench):
    """Bytes that autograd packs away; the head is shared as ever."""
    lm = adapted(bench.load())
    learner = learner_of(bench, "es2")
    (examples,) = drawn_examples(bench, learner, lm)

    def kept():
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: sizes.append(one.nbytes) or one, lambda one: one):
            learner.run(lm, examples)
        return sum(sizes)

    before = kept()
    lm.checkpoint_blocks()
    assert kept() < before / 4
    seen = []
    lm.decoder.register_forward_pre_hook(
        lambda _module, _inputs, named: seen.append(named["input_ids"].shape), with_kwargs=True
    )
    learner.run(lm, examples)
    assert len(seen) == 1
    assert seen[0][0] == 1
    assert seen[0][1] < sum(len(one.prompt_tokens) + len(one.answer_tokens) - 1 for one in examples)


def test_training_takes_the_same_course(bench):
    """The whole loop: watch, checkpoints, optimizer."""
    settings = {"lora": LORA, "steps": 4, "learning_rate": 1e-4}
    _, plain = bench.run(**settings)
    _, trained = bench.run(**settings, checkpointed=True)
    assert [row["step"] for row in trained.rows] == [1, 2, 3, 4]
    for row, expected in zip(trained.rows, plain.rows, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert trained.rows[-1]["loss"] < trained.rows[0]["loss"]
