"""The training loop: data order, control, resuming, stop rules, and what each method does to a tiny model."""

import math
from collections import Counter

import pytest
import torch
from torch.nn.functional import cross_entropy
from training_bench import SETTINGS, KilledError

from es2 import registry
from es2.checkpoints import Checkpoints, trainable
from es2.errors import UserError
from es2.training import add_lora, collapse, draw_batch, learning_rate


def weights(lm):
    return {name: value.detach().clone() for name, value in trainable(lm.model).items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def with_weight(value):
    return {**SETTINGS["separation"], "weight": value}


def test_hold_is_es2_with_weight_zero(bench):
    hold, table = bench.run("hold")
    zero, table_of_zero = bench.run("es2", separation=with_weight(0.0))
    es2, _ = bench.run("es2")
    assert same(weights(hold), weights(zero))
    assert table.rows == table_of_zero.rows
    assert not same(weights(hold), weights(es2))


def test_only_the_adapter_moves(bench):
    lm, _ = bench.run()
    fresh = dict(bench.load().model.named_parameters())
    for name, value in lm.base.named_parameters():
        if "lora" not in name:
            assert torch.equal(value, fresh[name.replace(".base_layer", "")])
    assert any(value.abs().max() > 0 for name, value in weights(lm).items() if "lora_B" in name)


def test_es2_separates_and_hold_does_not(bench):
    lora = {**SETTINGS["lora"], "dropout": 0.0}
    everything = {"harm": 4, "plain": 4}
    _, es2 = bench.run("es2", steps=15, lora=lora, batch=everything)
    _, hold = bench.run("hold", steps=15, lora=lora, batch=everything)
    assert es2.rows[0]["distance_ratio"] == pytest.approx(1.0, abs=1e-4)
    assert es2.rows[-1]["distance_ratio"] > 1.3
    assert abs(hold.rows[-1]["distance_ratio"] - 1) < 0.05
    assert es2.rows[-1]["loss"] < es2.rows[0]["loss"]


def test_the_first_loss_is_the_target_alone(bench):
    """Without dropout the child starts as its parent: no KL, no drift, ratio 1, so the hinge is target - 1."""
    lora = {**SETTINGS["lora"], "dropout": 0.0}
    _, trained = bench.run("es2", steps=1, lora=lora, batch={"harm": 4, "plain": 4})
    row = trained.rows[0]
    assert row["separation"] == pytest.approx(2.0, abs=1e-4)
    assert row["loss"] == pytest.approx(2.0, abs=1e-4)
    assert max(abs(row[name]) for name in ("kl", "kl_refusals", "drift")) < 1e-5


def test_kl_holds_only_the_refusals_of_harmful_prompts(bench):
    from oracles import add_random_lora

    from es2.examples import run_examples
    from es2.losses.divergence import kl_divergence

    lm = add_random_lora(bench.load(), scale=0.05)
    learner = registry.method("es2")(SETTINGS, bench.data)
    examples = [learner.example(key, 0) for key in ("h0", "h3", "s0")]
    with torch.no_grad():
        parts = learner.loss(lm, examples, run_examples(lm, examples, learner.layers)).parts
        for name, example in (("kl_refusals", examples[0]), ("kl", examples[2])):
            one = run_examples(lm, [example])
            expected = kl_divergence(lm.logits(one.final), lm.logits(example.states)).mean().item()
            assert parts[name] == pytest.approx(expected, rel=1e-4)
        none_refused = [examples[1], examples[2]]
        outputs = run_examples(lm, none_refused, learner.layers)
        assert learner.loss(lm, none_refused, outputs).parts["kl_refusals"] == 0.0


def test_refusal_sft_learns_to_refuse(bench):
    def refusal_loss(lm):
        tokens = bench.references["h0"].prompt_tokens
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([[*tokens, 5, 6, 7]])).logits[0, len(tokens) - 1 :]
        return cross_entropy(logits, torch.tensor([5, 6, 7, 1])).item()

    lm, trained = bench.run("refusal_sft", steps=15)
    assert refusal_loss(lm) < 0.7 * refusal_loss(bench.load())
    assert trained.rows[-1]["refusals"] < trained.rows[0]["refusals"]
    assert {"answers", "kl"} <= trained.rows[0].keys()
    _, without = bench.run("refusal_sft", steps=1, kl={"weight": 0.0})
    assert "kl" not in without.rows[0]


def test_refusal_sft_pairs_harmful_prompts_with_refusals_alone(bench):
    learner = registry.method("refusal_sft")(SETTINGS, bench.data)
    assert learner.example("h1", 3).answer_tokens == [8, 9, 1]
    assert learner.example("h1", 4).answer_tokens == [5, 6, 7, 1]
    assert learner.example("s1", 3).answer_tokens == bench.references["s1"].answer_tokens


def test_refusal_sft_cuts_answers_and_their_states_alike(bench):
    settings = {**SETTINGS, "sft": {"own_answers": 1.0, "answer_tokens": 2}}
    learner = registry.method("refusal_sft")(settings, bench.data)
    assert learner.example("h1", 4).answer_tokens == [5, 6]
    safe = learner.example("s1", 0)
    assert safe.answer_tokens == bench.references["s1"].answer_tokens[:2]
    assert torch.equal(safe.states, bench.references["s1"].states[:2])


def test_batches_are_a_function_of_seed_and_step():
    pools = {"harm": [f"h{i}" for i in range(7)], "plain": [f"s{i}" for i in range(5)]}
    sizes = {"plain": 2, "harm": 3}
    steps = [draw_batch(pools, sizes, 4, step) for step in range(35)]
    assert steps == [draw_batch({key: pool[::-1] for key, pool in pools.items()}, sizes, 4, s) for s in range(35)]
    assert steps != [draw_batch(pools, sizes, 5, step) for step in range(35)]
    for name, size in (("h", 3), ("s", 2)):
        drawn = [key for step in steps for key, _ in step if key[0] == name]
        n = len(pools["harm" if name == "h" else "plain"])
        epochs = [drawn[start : start + n] for start in range(0, len(drawn), n)]
        assert len(drawn) == 35 * size
        assert all(set(Counter(epoch).values()) == {1} and len(epoch) == n for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1
    assert len({number for step in steps for _, number in step}) > 150


def test_learning_rate():
    settings = {"learning_rate": 1.0, "warmup_steps": 4, "decay": "constant", "steps": 10}
    assert [learning_rate(settings, step) for step in (0, 1, 3, 4, 9)] == [0.25, 0.5, 1, 1, 1]
    assert learning_rate({**settings, "decay": "linear"}, 5) == pytest.approx(0.5)
    assert learning_rate({**settings, "warmup_steps": 0}, 0) == 1.0


def interrupt_at(step):
    def spoil(learner):
        loss, calls = learner.loss, []

        def broken(*arguments):
            calls.append(1)
            if len(calls) == step:
                raise KilledError
            return loss(*arguments)

        learner.loss = broken

    return spoil


@pytest.mark.parametrize("name", ["es2", "refusal_sft"])
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(bench, tmp_path, name):
    whole, table = bench.run(name)
    with pytest.raises(KilledError):
        bench.run(name, checkpoint=Checkpoints(tmp_path / "c", "mine"), spoil=interrupt_at(6))
    steps = []

    def count(learner):
        example = learner.example
        learner.example = lambda *arguments: steps.append(1) or example(*arguments)

    resumed, table_of_resumed = bench.run(name, checkpoint=Checkpoints(tmp_path / "c", "mine"), spoil=count)
    assert len(steps) == 2 * 4
    assert same(weights(resumed), weights(whole))
    assert table_of_resumed.rows == table.rows
    assert table_of_resumed.steps == 6


def test_a_checkpoint_of_another_job_is_ignored_and_deleted(bench, tmp_path):
    with pytest.raises(KilledError):
        bench.run(checkpoint=Checkpoints(tmp_path / "c", "other"), spoil=interrupt_at(4), learning_rate=1e-3)
    mine = Checkpoints(tmp_path / "c", "mine")
    assert mine.path.is_file()
    lm = bench.load()
    add_lora(lm, SETTINGS["lora"], 0)
    before = weights(lm)
    assert mine.load(lm.model, torch.optim.AdamW(trainable(lm.model).values())) == (0, [], {})
    assert same(weights(lm), before)
    assert not mine.path.exists()


def test_collapse_keeps_the_last_good_adapter_and_says_why(bench):
    """The weights are blown up before the fourth step; the watch after it puts those of the second step back."""
    good = {}

    def spoil(learner):
        example, calls = learner.example, []

        def blown(prompt_id, draw):
            calls.append(1)
            if len(calls) == 2 * 4 + 1:
                good.update(weights(models[0]))
            if len(calls) == 3 * 4 + 1:
                with torch.no_grad():
                    for name, value in trainable(models[0].model).items():
                        value.mul_(1000.0 if "lora_B" in name else 1.0)
            return example(prompt_id, draw)

        learner.example = blown

    models = []
    load = bench.load
    bench.load = lambda: models.append(load()) or models[-1]
    lm, trained = bench.run(spoil=spoil, stop={"kl_heldout": 1.0, "norm_ratio": 1e9}, learning_rate=1e-3)
    assert trained.stopped is not None
    assert "KL on held-out" in trained.stopped
    assert "step 4" in trained.stopped
    assert trained.steps == 2
    assert len(trained.rows) == 4
    assert same(weights(lm), good)


def test_collapse_before_any_watch_keeps_the_start(bench):
    lm, trained = bench.run(stop={"kl_heldout": 0.0, "norm_ratio": 20.0}, learning_rate=0.1)
    assert trained.steps == 0
    assert all(value.abs().max() == 0 for name, value in weights(lm).items() if "lora_B" in name)


def test_a_loss_that_is_not_finite_stops_at_once(bench):
    def spoil(learner):
        learner.kl_weight = math.nan

    _, trained = bench.run(spoil=spoil)
    assert trained.stopped == "the loss is nan at step 1"
    assert trained.steps == 0


def test_weights_that_are_not_numbers_are_a_collapse(bench):
    """A finite loss may have a gradient that is not: the watch must not take the adapter for good."""

    def spoil(learner):
        loss = learner.loss

        def poisoned(lm, examples, outputs):
            found = loss(lm, examples, outputs)
            found.total.register_hook(lambda gradient: gradient * math.nan)
            return found

        learner.loss = poisoned

    lm, trained = bench.run(spoil=spoil)
    assert trained.stopped is not None
    assert trained.steps == 0
    assert all(torch.isfinite(value).all() for value in weights(lm).values())


def test_stop_rules():
    stop = {"kl_heldout": 1.0, "norm_ratio": 2.0}
    row = {"loss": 1.0, "step": 3}
    assert collapse(row, stop) is None
    assert collapse({**row, "kl_heldout": 1.0, "norm_ratio": 0.5}, stop) is None
    for bad in (
        {"kl_heldout": 1.1},
        {"norm_ratio": 2.1},
        {"norm_ratio": 0.49},
        {"loss": math.inf},
        {"kl_heldout": math.nan},
    ):
        assert "step 3" in collapse({**row, **bad}, stop)


def test_a_trained_head_is_refused(load_model):
    with pytest.raises(UserError, match="LM head must stay frozen"):
        add_lora(load_model(), {**SETTINGS["lora"], "targets": ["q_proj", "lm_head"]}, 0)
