"""ES2 at the mean of a prompt's tokens: the means are a plain pass's, and with no change nothing is moved."""

import pytest
import torch
from training_bench import SETTINGS

from es2 import registry
from es2.methods.mean_position import MeanPosition


def learner_of(bench) -> MeanPosition:
    return registry.method("es2_mean")(SETTINGS, bench.data)


def examples_of(bench, learner):
    return [learner.example(key, 0) for pool in bench.pools.values() for key in pool[:3]]


@pytest.fixture
def parent(bench):
    return bench.load()


def test_the_means_are_those_of_a_plain_pass(bench, parent):
    learner = learner_of(bench)
    examples = examples_of(bench, learner)
    with torch.no_grad():
        outputs = learner.run(parent, examples)
        head = next(
            place for place in range(100) if len({tuple(one.prompt_tokens[: place + 1]) for one in examples}) > 1
        )
        for row, example in enumerate(examples):
            states = {}
            handle = parent.blocks[1].register_forward_hook(
                lambda _m, _i, output, states=states: states.update(h=output)
            )
            parent.model(input_ids=torch.tensor([example.prompt_tokens]), use_cache=False)
            handle.remove()
            torch.testing.assert_close(
                outputs.residual[1][row], states["h"][0, head:].mean(dim=0), atol=1e-4, rtol=1e-4
            )


def test_a_last_part_of_one_prompt_is_read_as_the_others(bench, parent, monkeypatch):
    whole = learner_of(bench)
    whole.prepare(parent, [])
    assert len(whole.parent_means) == 8
    monkeypatch.setattr("es2.methods.mean_position.PART", 7)
    parts = learner_of(bench)
    parts.prepare(parent, [])
    for key, mean in whole.parent_means.items():
        torch.testing.assert_close(parts.parent_means[key], mean, atol=1e-4, rtol=1e-4)


def test_of_the_parent_itself_nothing_drifts_and_the_ratio_is_the_batchs(bench, parent):
    learner = learner_of(bench)
    learner.prepare(parent, [])
    examples = examples_of(bench, learner)
    with torch.no_grad():
        loss = learner.loss(parent, examples, learner.run(parent, examples))
    assert loss.parts["drift"] == pytest.approx(0.0, abs=1e-5)
    assert loss.parts["kl"] == pytest.approx(0.0, abs=1e-6)
    means = torch.stack([learner.parent_means[one.prompt_id] for one in examples], dim=1)
    harmful = torch.tensor([one.prompt_id in bench.data.harmful for one in examples])
    own = torch.cdist(means[:, harmful], means[:, ~harmful]).mean(dim=(1, 2))
    every = torch.stack([learner.parent_means[key] for key in bench.data.references], dim=1)
    labels = torch.tensor([key in bench.data.harmful for key in bench.data.references])
    whole = torch.cdist(every[:, labels], every[:, ~labels]).mean(dim=(1, 2))
    assert loss.parts["distance_ratio"] == pytest.approx((own / whole).mean().item(), rel=1e-4)


def test_training_pushes_the_means_apart(bench):
    _, trained = bench.run("es2_mean", steps=12, evaluate_every=12)
    assert trained.rows[-1]["distance_ratio"] > 1.1 * trained.rows[0]["distance_ratio"]
