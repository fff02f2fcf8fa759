"""The rivals in the one trainer: their losses against naive forms, and what training with them does."""

from dataclasses import replace

import pytest
import torch
from conftest import FAMILIES, PROMPTS
from oracles import add_random_lora
from training_bench import SETTINGS, KilledError

from es2 import registry
from es2.activations import record_residual
from es2.checkpoints import Checkpoints, trainable
from es2.errors import UserError
from es2.examples import Example, run_examples
from es2.losses.rerouting import random_target_loss, rerouting_loss, retain_loss, schedule
from es2.losses.triplet import triplet_losses
from es2.methods.adversarial import landing, project, push
from es2.models import Cursor
from es2.probes import fit_probe_set
from es2.training import _step, add_lora, draw_batch

RIVALS = ["circuit_breakers", "triplet", "random_target", "adversarial", "es2_adversarial"]


def states(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rerouting_and_retain_are_token_by_token():
    own, parent = states(7, 5, seed=0), states(7, 5, seed=9)
    cosines = [(a @ b / (a.norm() * b.norm())).item() for a, b in zip(own, parent, strict=True)]
    assert rerouting_loss(own, parent).item() == pytest.approx(sum(max(0.0, c) for c in cosines) / 7, rel=1e-5)
    assert min(cosines) < 0 < max(cosines)
    lengths = [(a - b).norm().item() for a, b in zip(own, parent, strict=True)]
    assert retain_loss(own, parent).item() == pytest.approx(sum(lengths) / 7, rel=1e-5)


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


def plain_states(lm, example, layer):
    """The residual stream at all tokens of an example but the answer's last, by plain transformers."""
    seen = {}
    handle = lm.blocks[layer].register_forward_hook(lambda _module, _inputs, output: seen.update(states=output))
    ids = torch.tensor([[*example.prompt_tokens, *example.answer_tokens[:-1]]])
    lm.model(input_ids=ids, use_cache=False)
    handle.remove()
    return seen["states"][0]


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
                expected = plain_states(lm, example, layer)
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


def test_the_edits_of_training_are_the_attackers_steps(scene):
    probes = scene.probes
    e = scene.embeddings[:12, 2]
    edited = landing(probes, 1, 1.5)(2, e, torch.arange(12), 0)
    w = probes.weight[1, 2]
    target = -0.5 * probes.mu_harmful[1, 2] + 1.5 * probes.mu_safe[1, 2]
    for one, found in zip(e, edited, strict=True):
        over = w @ one > target
        expected = one - over * (w @ one - target) * w / (w @ w)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    unit = torch.nn.functional.normalize(states(4, 32, seed=0), dim=-1)
    moved = push(unit, torch.tensor([1.0, 2.0, 3.0, 4.0]))(2, e, torch.arange(12), 0)
    torch.testing.assert_close(moved - e, (3 * unit[2]).expand(12, 32), atol=1e-5, rtol=1e-4)
    for one, left in zip(e, project(unit[1])(2, e, torch.arange(12), 0), strict=True):
        torch.testing.assert_close(left, one - unit[1] * (unit[1] @ one), atol=1e-4, rtol=1e-4)


def test_every_edit_is_drawn(bench):
    learner = learner_of(bench, "adversarial")
    lm = add_random_lora(bench.load(), scale=0.05)
    drawn_examples(bench, learner, lm)
    kinds = set()
    for step in range(40):
        learner.begin(lm, step, 40)
        kinds.add(learner.draw(lm)[0].__qualname__.partition(".")[0])
    assert kinds == {"landing", "push", "project"}


@pytest.mark.parametrize("name", ["adversarial", "es2_adversarial"])
def test_what_is_drawn_follows_the_seed(bench, name):
    def first(seed):
        learner = learner_of(bench, name)
        learner.prepare(bench.load(), draw_batch(bench.pools, {"harm": 2, "plain": 2}, seed, 0))
        learner.begin(bench.load(), 0, 6)
        return learner.random.random()

    assert first(0) == first(0)
    assert first(0) != first(1)


def drawn_examples(bench, learner, lm, batches=1):
    drawn = [draw_batch(bench.pools, {"harm": 3, "plain": 3}, 0, step) for step in range(batches)]
    learner.prepare(lm, [pair for batch in drawn for pair in batch])
    return [[learner.example(*pair) for pair in batch] for batch in drawn]


def learner_of(bench, name, **changes):
    return registry.method(name)({**SETTINGS, **changes}, bench.data)


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
                pair = [plain_states(lm, example, layer)[-n:] for lm in (child, parent)]
                parts[example.role].setdefault(layer, []).append(pair)
    joined = {
        role: {layer: [torch.cat(side) for side in zip(*pairs, strict=True)] for layer, pairs in found.items()}
        for role, found in parts.items()
    }
    rerouted = sum(rerouting_loss(*joined["change"][layer]) for layer in (1, 2)) / 2
    retained = sum(retain_loss(*joined["retain"][layer]) for layer in (1, 2)) / 2
    assert loss.parts["rerouting"] == pytest.approx(rerouted.item(), rel=1e-3)
    assert loss.parts["retain"] == pytest.approx(retained.item(), rel=1e-3)
    assert loss.total.item() == pytest.approx(2.0 * 0.75 * rerouted.item() + 2.0 * 0.25 * retained.item(), rel=1e-3)


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


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_lower_their_loss(bench, name):
    # Enough steps and no dropout: what falls is the loss and not the luck of a batch.
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}
    batch = {"harm": 4, "plain": 4}
    rerouting = {"alpha": 2.0, "refusals": 0.5, "scale": 2.0}
    _, trained = bench.run(name, steps=16, lora=lora, batch=batch, rerouting=rerouting, evaluate_every=16)
    if name in ("circuit_breakers", "random_target"):
        # The retain term takes over as training goes on.
        assert min(row["rerouting"] for row in trained.rows) < trained.rows[0]["rerouting"] - 0.01
        return
    key = "kl_refusals_attacked" if name == "adversarial" else "loss"
    values = [row[key] for row in trained.rows]
    assert sum(values[-4:]) < sum(values[:4])


@pytest.mark.parametrize("name", RIVALS)
def test_a_resumed_rival_is_the_undisturbed_one(bench, tmp_path, name):
    def interrupt(learner):
        begin = learner.begin

        def stopping(lm, step, steps):
            if step == 5:
                raise KilledError
            begin(lm, step, steps)

        learner.begin = stopping

    _, whole = bench.run(name)
    saved = Checkpoints(tmp_path, "same")
    with pytest.raises(KilledError):
        bench.run(name, checkpoint=saved, spoil=interrupt)
    assert saved.path.is_file()
    _, resumed = bench.run(name, checkpoint=saved)
    assert resumed.rows == whole.rows


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
        edit, layers = learner.draw(lm)
        attacked = run_examples(lm, examples, edit=edit, edited=layers)
        harmful = torch.tensor([example.prompt_id in bench.data.harmful for example in examples])
        safe, refusals = hold.divergences(lm, examples, attacked, harmful)
    assert found.total.item() == pytest.approx((clean.total + refusals + safe).item(), rel=1e-5)
    assert found.parts["kl_attacked"] > found.parts["kl"]


def test_the_attacker_of_training_is_fitted_on_the_model_as_it_is(bench):
    learner = learner_of(bench, "adversarial", adversarial={**SETTINGS["adversarial"], "fit_prompts": 100})
    lm = add_random_lora(bench.load(), scale=0.05)
    learner.begin(lm, 0, 6)
    ids = [key for key in bench.data.references if key in bench.data.harmful]
    ids += [key for key in bench.data.references if key not in bench.data.harmful]
    values = []
    with torch.no_grad(), record_residual(lm, range(lm.n_layers)) as recorded:
        for key in ids:
            tokens = bench.references[key].prompt_tokens
            with lm.looking_at(Cursor(torch.tensor([0]), torch.tensor([len(tokens) - 1]))):
                lm.decoder(input_ids=torch.tensor([tokens]), use_cache=False)
            values.append(torch.stack([recorded[layer][0] for layer in range(lm.n_layers)]))
    labels = torch.tensor([key in bench.data.harmful for key in ids])
    values = torch.stack(values)
    expected = fit_probe_set(values, labels, values, labels, [0.01, 1.0], seed=0)
    torch.testing.assert_close(learner.probes.weight, expected.weight, atol=1e-3, rtol=1e-2)
    difference = values[~labels].mean(0) - values[labels].mean(0)
    torch.testing.assert_close(
        learner.difference, torch.nn.functional.normalize(difference, dim=-1), atol=1e-4, rtol=1e-3
    )
    before = learner.probes
    learner.begin(lm, 1, 6)
    assert learner.probes is before
    learner.begin(lm, 2, 6)
    assert learner.probes is not before


def test_accumulated_batches_are_one_step_on_their_mean(bench):
    """The schedule counts optimizer steps, whatever the number of batches behind each."""
    seen = []

    def watch(learner):
        begin, loss = learner.begin, learner.loss

        def begun(lm, step, steps):
            begin(lm, step, steps)
            seen.append(learner.coefficients)

        def counted(*arguments):
            seen.append("batch")
            return loss(*arguments)

        learner.begin, learner.loss = begun, counted

    _, trained = bench.run("circuit_breakers", steps=3, accumulate=2, spoil=watch)
    expected = []
    for step in range(3):
        expected += [schedule(2.0, step, 3), "batch", "batch"]
    assert seen == expected
    assert [row["step"] for row in trained.rows] == [1, 2, 3]


def test_the_gradient_of_accumulated_batches_is_that_of_their_mean(bench):
    lm = bench.load()
    add_lora(lm, {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}, 0)
    learner = learner_of(bench, "refusal_sft")
    batches = [draw_batch(bench.pools, {"harm": 2, "plain": 2}, 0, number) for number in range(2)]

    class Recorder:
        """An optimizer that notes the gradients and leaves the weights alone."""

        param_groups = ()

        def step(self):
            self.seen = [value.grad.clone() for value in trainable(lm.model).values()]

        def zero_grad(self):
            for value in trainable(lm.model).values():
                value.grad = None

    def gradients(*chosen):
        recorder = Recorder()
        row = _step(lm, learner, recorder, chosen, {**SETTINGS, "clip": 1e9}, 0)
        return row["loss"], recorder.seen

    (one, first), (two, second), (mean, both) = gradients(batches[0]), gradients(batches[1]), gradients(*batches)
    assert mean == pytest.approx((one + two) / 2, rel=1e-6)
    for a, b, c in zip(first, second, both, strict=True):
        torch.testing.assert_close(c, (a + b) / 2, atol=1e-6, rtol=1e-4)
    assert any(value.abs().max() > 0 for value in both)
