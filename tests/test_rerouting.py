"""Circuit breakers, random target and triplet: losses against naive forms, and what is rerouted."""

from dataclasses import replace

import pytest
import torch
from oracles import add_random_lora, states_along
from training_bench import SETTINGS, drawn_examples, learner_of, states

from es2 import registry
from es2.errors import UserError
from es2.examples import run_examples
from es2.losses.rerouting import random_target_loss, rerouting_loss, retain_loss, schedule
from es2.losses.triplet import triplet_losses


def test_rerouting_and_retain_are_token_by_token():
    own, parent = states(7, 5, seed=0), states(7, 5, seed=9)
    cosines = [(a @ b / (a.norm() * b.norm())).item() for a, b in zip(own, parent, strict=True)]
    assert rerouting_loss(own, parent).item() == pytest.approx(sum(max(0.0, c) for c in cosines) / 7, rel=1e-5)
    assert min(cosines) < 0 < max(cosines)
    lengths = [(a - b).norm().item() for a, b in zip(own, parent, strict=True)]
    norm = sum(one.norm().item() for one in parent) / 7
    assert retain_loss(own, parent).item() == pytest.approx(sum(lengths) / 7 / norm, rel=1e-5)


def test_random_target_is_zero_on_the_target_alone():
    unit, parent = torch.eye(5)[2], states(7, 5, seed=1)
    length = 3.0 * parent.norm(dim=-1).mean()
    assert random_target_loss(length * unit.expand(7, 5), parent, unit, 3.0).item() == pytest.approx(0.0, abs=1e-10)
    own = states(7, 5, seed=0)
    expected = sum(((one - length * unit) ** 2).sum() for one in own) / 7 / length**2
    assert random_target_loss(own, parent, unit, 3.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_schedule_is_the_papers():
    assert schedule(10.0, 0, 150) == (10.0, 0.0)
    assert schedule(10.0, 75, 150) == (7.5, 2.5)
    assert schedule(10.0, 150, 150) == (5.0, 5.0)


def test_triplet_losses_are_token_by_token():
    safe, safe_parent, harmful, harmful_parent = (states(n, 4, seed=n) for n in (6, 6, 5, 5))
    safe_parent, harmful_parent = safe + 0.3 * safe_parent, harmful + 2 * harmful_parent
    norm = torch.cat([safe_parent, harmful_parent]).norm(dim=-1).mean()
    centre = harmful.mean(0)
    on_safe, on_harmful = triplet_losses(safe, safe_parent, harmful, harmful_parent, (0.2, 0.4))
    each = [
        max(0.0, ((a - b).norm() - (a - centre).norm()) / norm + 0.2) for a, b in zip(safe, safe_parent, strict=True)
    ]
    assert on_safe.item() == pytest.approx(float(sum(each)) / 6, rel=1e-5)
    pairs = zip(harmful, harmful_parent, strict=True)
    each = [max(0.0, ((a - centre).norm() - (a - b).norm()) / norm + 0.4) for a, b in pairs]
    assert on_harmful.item() == pytest.approx(float(sum(each)) / 5, rel=1e-5)
    assert on_safe > 0
    assert on_harmful > 0


def test_circuit_breakers_change_compliance_and_retain_the_rest(bench):
    learner = learner_of(bench, "circuit_breakers")
    learner.refusals = 0.0
    first = learner.example("h0", 7)
    assert first.role == "change"
    assert first.prompt_id in bench.data.compliant, "h0 was refused by the untrained model"
    assert learner.example("h1", 7).answer_tokens == bench.data.compliant["h1"]
    learner.refusals = 1.0
    refusal = learner.example("h1", 7)
    assert (refusal.role, refusal.answer_tokens) == ("retain", bench.references["h1"].answer_tokens)
    assert learner.example("h3", 7).role == "change", "the parent did not refuse h3"
    assert learner.example("s0", 7).role == "retain"


def test_circuit_breakers_loss_is_by_hand(bench):
    parent, child = bench.load(), add_random_lora(bench.load(), scale=0.05)
    learner = learner_of(bench, "circuit_breakers")
    examples = drawn_examples(bench, learner, parent)[0]
    learner.begin(child, 3, 6)
    with torch.no_grad():
        outputs = learner.run(child, examples)
        loss = learner.loss(child, examples, outputs)
        parts = {"change": {}, "retain": {}}
        for place, example in enumerate(examples):
            for layer in (1, 2):
                n = len(outputs.whole[place][layer])
                pair = [states_along(lm, example, layer)[-n:] for lm in (child, parent)]
                parts[example.role].setdefault(layer, []).append(pair)
    joined = {
        role: {layer: [torch.cat(side) for side in zip(*pairs, strict=True)] for layer, pairs in found.items()}
        for role, found in parts.items()
    }
    rerouted = sum(rerouting_loss(*joined["change"][layer]) for layer in (1, 2)) / 2
    retained = sum(retain_loss(*joined["retain"][layer]) for layer in (1, 2)) / 2
    assert loss.parts["rerouting"] == pytest.approx(rerouted.item(), rel=1e-3)
    assert loss.parts["retain"] == pytest.approx(retained.item(), rel=1e-3)
    assert loss.total.item() == pytest.approx(
        2.0 * 0.75 * rerouted.item() + 2.0 * 0.25 * 3.0 * retained.item(), rel=1e-3
    )


def test_the_parents_states_do_not_depend_on_the_batch(bench):
    """What a batch shares with its head differs from batch to batch; the states compared must be the same tokens'."""
    parent = bench.load()
    learner = learner_of(bench, "circuit_breakers")
    for examples in drawn_examples(bench, learner, parent, batches=4):
        outputs = run_examples(parent, examples, learner.layers, whole=True)
        parts = learner.loss(parent, examples, outputs).parts
        assert parts["rerouting"] == pytest.approx(1.0, abs=1e-5)
        assert parts["retain"] == pytest.approx(0.0, abs=1e-3)


def test_nothing_to_reroute_is_a_user_error(bench):
    with pytest.raises(UserError, match="nothing to reroute"):
        registry.method("circuit_breakers")(SETTINGS, replace(bench.data, compliant={}))


@pytest.mark.parametrize("name", ["circuit_breakers", "random_target", "triplet"])
def test_a_batch_without_a_prompt_to_change_trains_the_other_terms(bench, name):
    """By chance every harmful prompt of a batch may stand there with the parent's refusal."""
    learner = learner_of(bench, name)
    lm = add_random_lora(bench.load(), scale=0.05)
    refused = [key for key in bench.pools["harm"] if bench.references[key].verdict == "refusal"]
    examples = [learner.example(key, 0) for key in [*refused, *bench.pools["plain"]]]
    assert {one.role for one in examples} == {"retain"}
    learner.prepare(bench.load(), [(one.prompt_id, 0) for one in examples])
    learner.begin(lm, 3, 6)
    loss = learner.loss(lm, examples, learner.run(lm, examples))
    moved = {"triplet": "triplet_harmful"}.get(name, "rerouting")
    assert loss.parts[moved] == 0
    rest = {"triplet": SETTINGS["kl"]["weight"] * loss.parts.get("kl", 0)}
    expected = rest.get(name, learner.coefficients[1] * SETTINGS["rerouting"]["retain"] * loss.parts.get("retain", 0))
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert expected > 0
    loss.total.backward()
    assert any(one.grad is not None and one.grad.abs().sum() > 0 for one in lm.model.parameters() if one.requires_grad)
