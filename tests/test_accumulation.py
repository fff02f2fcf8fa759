"""Several batches behind one optimizer step."""

import pytest
import torch
from training_bench import SETTINGS, learner_of

from es2.checkpoints import trainable
from es2.losses.rerouting import schedule
from es2.training import _step, add_lora, draw_batch


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
