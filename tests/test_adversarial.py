"""Training under the attack: the edits are the attackers', and the terms are those of `hold` under them."""

from dataclasses import replace

import pytest
import torch
from oracles import add_random_lora
from training_bench import SETTINGS, drawn_examples, learner_of

from es2.examples import run_examples
from es2.methods.base import kl_to_parent
from es2.training import draw_batch


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_each_part_of_a_batch_has_an_edit_of_its_own(bench, monkeypatch, parts):
    """The oracle: each example alone, under the edit that its part was given."""
    learner = learner_of(bench, "adversarial", adversarial={**SETTINGS["adversarial"], "parts": parts})
    lm = add_random_lora(bench.load(), scale=0.05)
    examples = drawn_examples(bench, learner, lm)[0]
    learner.begin(lm, 0, 6)
    kinds, edits = [], []
    draw = learner.adversary.draw

    def recorded(lm, kind):
        kinds.append(kind)
        edits.append(draw(lm, kind))
        return edits[-1]

    monkeypatch.setattr(learner.adversary, "draw", recorded)
    with torch.no_grad():
        found = learner.adversary.attacked(lm, examples)
        for row, example in enumerate(examples):
            edit, layers = edits[row % parts]
            alone = run_examples(lm, [example], edit=edit, edited=layers)
            mine = found.rows == row
            torch.testing.assert_close(found.final[mine], alone.final, atol=1e-4, rtol=1e-4)
            assert torch.equal(found.targets[mine], alone.targets)
            assert torch.equal(found.first[mine], alone.first)
    assert len(kinds) == parts
    assert len(set(kinds)) == min(parts, 3)
    assert found.rows.tolist() == sorted(found.rows.tolist())


@pytest.mark.parametrize("name", ["adversarial", "es2_adversarial"])
def test_what_is_drawn_follows_the_seed(bench, name):
    def first(seed):
        learner = learner_of(bench, name)
        learner.prepare(bench.load(), draw_batch(bench.pools, {"harm": 2, "plain": 2}, seed, 0))
        learner.begin(bench.load(), 0, 6)
        return learner.adversary.random.random()

    assert first(0) == first(0)
    assert first(0) != first(1)


def test_adversarial_is_hold_and_the_same_terms_under_the_edit(bench):
    learner, hold = learner_of(bench, "adversarial"), learner_of(bench, "hold")
    lm = add_random_lora(bench.load(), scale=0.05)
    examples = drawn_examples(bench, learner, lm)[0]
    learner.begin(lm, 0, 6)
    with torch.no_grad():
        outputs = learner.run(lm, examples)
        found = learner.loss(lm, examples, outputs)
        clean = hold.loss(lm, examples, outputs)
        learner.begin(lm, 0, 6)
        attacked = learner.adversary.attacked(lm, examples)
        harmful = torch.tensor([example.prompt_id in bench.data.harmful for example in examples])
        safe, refusals = hold.divergences(lm, examples, attacked, harmful)
    assert found.total.item() == pytest.approx((clean.total + refusals + safe).item(), rel=1e-5)
    assert found.parts["kl_attacked"] > found.parts["kl"]


def test_the_first_tokens_alone_are_held_under_the_edit(bench):
    """The oracle: both terms read off a pass over the whole answers, which later tokens do not change."""
    learner = learner_of(bench, "adversarial", adversarial={**SETTINGS["adversarial"], "answer_tokens": 2})
    whole = learner_of(bench, "adversarial")
    lm = add_random_lora(bench.load(), scale=0.05)
    examples = drawn_examples(bench, learner, lm)[0]
    drawn_examples(bench, whole, lm)
    with torch.no_grad():
        learner.begin(lm, 0, 6)
        found = learner.loss(lm, examples, learner.run(lm, examples)).parts
        whole.begin(lm, 0, 6)
        outputs = whole.adversary.attacked(lm, examples)
        kl = kl_to_parent(lm, outputs.final, examples)
    early = torch.cat([torch.arange(len(example.answer_tokens)) for example in examples]) < 2
    harmful = torch.tensor([example.prompt_id in bench.data.harmful for example in examples])[outputs.rows]
    refused = torch.tensor([bench.references[example.prompt_id].verdict == "refusal" for example in examples])
    assert early.sum() < len(early)
    assert found["kl_attacked"] == pytest.approx(kl[early & ~harmful].mean().item(), rel=1e-4)
    assert found["kl_refusals_attacked"] == pytest.approx(
        kl[early & harmful & refused[outputs.rows]].mean().item(), rel=1e-4
    )


def test_harmless_answers_are_held_at_their_first_tokens_without_the_edit_too(bench):
    """The oracle: what a training without the term has, and the KL of a plain pass over the answers cut by hand."""
    held = {**SETTINGS["adversarial"], "answer_tokens": 2, "safe_unedited": 3.0}
    learner = learner_of(bench, "adversarial", adversarial=held)
    without = learner_of(bench, "adversarial", adversarial={**held, "safe_unedited": 0.0})
    lm = add_random_lora(bench.load(), scale=0.05)
    examples = drawn_examples(bench, learner, lm)[0]
    drawn_examples(bench, without, lm)
    with torch.no_grad():
        losses = []
        for one in (learner, without):
            one.begin(lm, 0, 6)
            losses.append(one.loss(lm, examples, one.run(lm, examples)))
        safe = [one for one in examples if one.prompt_id not in bench.data.harmful]
        cut = [replace(one, answer_tokens=one.answer_tokens[:2], states=one.states[:2]) for one in safe]
        expected = kl_to_parent(lm, run_examples(lm, cut).final, cut).mean().item()
    assert expected > 1e-4
    assert losses[0].parts["kl_unedited"] == pytest.approx(expected, rel=1e-4)
    assert (losses[0].total - losses[1].total).item() == pytest.approx(3 * expected, rel=1e-3)


def test_ablation_in_training_is_the_attackers_at_every_token(bench):
    """The oracle: the embedding and every write projected by hand, the answer's states read one prompt at a time."""
    ablating = {**SETTINGS["adversarial"], "edits": ["ablation"]}
    learner = learner_of(bench, "adversarial", adversarial=ablating)
    lm = add_random_lora(bench.load(), scale=0.05)
    examples = drawn_examples(bench, learner, lm)[0]
    learner.begin(lm, 1, 6)
    found = learner.adversary.attacked(lm, examples)
    learner.begin(lm, 1, 6)
    learner.adversary.random.choice(["ablation"])
    unit = learner.adversary.draw_direction(lm)
    assert unit.norm().item() == pytest.approx(1.0, rel=1e-5)

    def without(_module, _inputs, output):
        states = output[0] if isinstance(output, tuple) else output
        states = states - (states @ unit)[..., None] * unit
        return (states, *output[1:]) if isinstance(output, tuple) else states

    writers = [lm.base.get_input_embeddings()]
    writers += [part for block in lm.blocks for part in (block.self_attn, block.mlp)]
    hooks = [writer.register_forward_hook(without) for writer in writers]
    states = []
    with torch.no_grad():
        for one in examples:
            tokens = [*one.prompt_tokens, *one.answer_tokens[:-1]]
            hidden = lm.decoder(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state[0]
            states.append(hidden[len(one.prompt_tokens) - 1 :])
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found.final, torch.cat(states), atol=1e-4, rtol=1e-3)
    plain = run_examples(lm, examples)
    assert (found.final - plain.final).abs().max() > 1e-2
