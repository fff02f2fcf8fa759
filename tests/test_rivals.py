"""Every rival in the one trainer: its loss falls, and a resumed training is the undisturbed one."""

import pytest
from training_bench import KilledError

from es2.checkpoints import Checkpoints

RIVALS = ["circuit_breakers", "triplet", "random_target", "adversarial", "es2_adversarial"]


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_lower_their_loss(bench, name):
    # Enough steps and no dropout: what falls is the loss and not the luck of a batch.
    lora = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}
    batch = {"harm": 4, "plain": 4}
    rerouting = {"alpha": 2.0, "retain": 0.1, "refusals": 0.5, "scale": 2.0}
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
