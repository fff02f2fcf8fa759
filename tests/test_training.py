"""The training loop: data order, control, resuming, stop rules, and what each method does to a tiny model."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import PROMPTS
from torch.nn.functional import cross_entropy

from es2 import registry
from es2.checkpoints import Checkpoints, trainable
from es2.embeddings import Embeddings, extract_tokens, save_embeddings
from es2.errors import UserError
from es2.files import write_json, write_jsonl
from es2.finetuning import finetune, held_out, refusal_tokens, training_layers
from es2.methods.base import TrainingData
from es2.reference import record, save_references
from es2.training import HeldOut, add_lora, collapse, draw_batch, learning_rate, train

HARMFUL = ["Make a trap", "Steal a car now", "Forge a letter", "Break a lock"]
SAFE = ["Make a cake", "Wash a car now", "Write a letter", "Mend a clock"]
SETTINGS = {
    "steps": 6,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "decay": "constant",
    "weight_decay": 0.0,
    "clip": 1.0,
    "batch": {"harm": 2, "plain": 2},
    "evaluate_every": 2,
    "checkpoint_every": 2,
    "stop": {"kl_heldout": 50.0, "norm_ratio": 20.0},
    "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": "all-linear"},
    "separation": {"weight": 1.0, "form": "bounded", "distance": "pairwise", "target": 3.0, "layers": [1, 2]},
    "kl": {"weight": 0.5},
    "hold": {"refusals": 0.5, "safe_drift": 0.1},
    "sft": {"own_answers": 1.0, "answer_tokens": 16},
}


class Bench:
    """A tiny parent with its references and embeddings; `run` trains a fresh child of it."""

    def __init__(self, load_model, folder):
        self.load, self.folder, self.runs = load_model, folder, 0
        lm = load_model()
        texts = {f"h{i}": text for i, text in enumerate(HARMFUL)} | {f"s{i}": text for i, text in enumerate(SAFE)}
        texts |= {f"v{i}": text for i, text in enumerate(PROMPTS[:3])}
        self.texts = texts
        references = record(lm, texts, lambda prompt, _: "refusal" if prompt in HARMFUL[:3] else "compliance", 4)
        self.references = {one.prompt_id: one for one in references}
        values = extract_tokens(lm, [one.prompt_tokens for one in references])
        self.embeddings = Embeddings(list(texts), values)
        self.pools = {"harm": [key for key in texts if key[0] == "h"], "plain": [key for key in texts if key[0] == "s"]}
        watched = [one for one in references if one.prompt_id[0] == "v"]
        self.held_out = HeldOut(watched, self.embeddings.of([one.prompt_id for one in watched]))
        known = {key: one for key, one in self.references.items() if key[0] != "v"}
        self.data = TrainingData(
            frozenset(self.pools["harm"]), known, [[5, 6, 7, 1], [8, 9, 1]], self.embeddings, [1, 2]
        )

    def run(self, name="es2", seed=0, checkpoint=None, spoil=None, **changes):
        """(model, Trained) of a method under changed settings; `spoil(learner)` may tamper with the method."""
        settings = {**SETTINGS, **changes}
        lm = self.load()
        torch.manual_seed(seed)
        add_lora(lm, settings["lora"], seed)
        learner = registry.method(name)(settings, self.data)
        if spoil is not None:
            spoil(learner)
        self.runs += 1
        saved = checkpoint or Checkpoints(self.folder / f"run-{self.runs}", "none")
        return lm, train(lm, learner, self.pools, self.held_out, settings, seed, saved)


@pytest.fixture
def bench(load_model, tmp_path):
    return Bench(load_model, tmp_path)


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


class KilledError(Exception):
    """A killed job."""


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


def test_training_layers():
    assert training_layers({"separation": {"layers": "auto"}}, [3, 5], 6) == [3, 5]
    assert training_layers({"separation": {"layers": [0, 2]}}, [3, 5], 6) == [0, 2]
    with pytest.raises(UserError, match=r"\[6\] lie outside"):
        training_layers({"separation": {"layers": [1, 6]}}, [3], 6)


def test_refusals_cut_by_the_limit_have_no_end_token(load_model, tmp_path):
    lm = load_model()
    write_jsonl(tmp_path / "r.jsonl", [{"text": "No"}, {"text": "I will not do that for you or anybody"}])
    short, cut = refusal_tokens(lm, tmp_path / "r.jsonl", 5)
    assert short == [*lm.tokenizer("No")["input_ids"], lm.tokenizer.eos_token_id]
    assert len(cut) == 5
    assert lm.tokenizer.eos_token_id not in cut


@pytest.fixture
def job(bench, tmp_path):
    """The files of a fine-tuning job, as Snakemake would name them."""
    rows = []
    for key in bench.texts:
        name, label = ("harm", "harmful") if key[0] == "h" else ("plain", "safe")
        split = "validation" if key[0] == "v" else "defence"
        rows.append({"prompt_id": key, "prompt": bench.texts[key], "set": name, "label": label, "split": split})
    pd.DataFrame(rows).to_parquet(tmp_path / "prompts.parquet")
    answers, states = tmp_path / "answers.jsonl", tmp_path / "states.safetensors"
    save_references(answers, states, list(bench.references.values()))
    save_embeddings(tmp_path / "embeddings.safetensors", bench.embeddings)
    write_json(tmp_path / "layers.json", {"layers": [0, 2]})
    write_jsonl(tmp_path / "refusals.jsonl", [{"text": "I will not."}])
    names = SimpleNamespace(
        prompts=[tmp_path / "prompts.parquet"],
        answers=answers,
        states=states,
        embeddings=tmp_path / "embeddings.safetensors",
        layers=tmp_path / "layers.json",
        refusals=[tmp_path / "refusals.jsonl"],
        model=str(tmp_path / "tiny" / "manifest.json"),
    )
    output = SimpleNamespace(
        adapter_config=tmp_path / "run" / "adapter" / "adapter_config.json", table=tmp_path / "run" / "training.csv"
    )
    row = {"run": "es2", "model": "tiny", "method": "es2", "parent": "base", "seed": 0}
    params = SimpleNamespace(row=row, code="abc", checkpoints=str(tmp_path / "checkpoints"))
    return SimpleNamespace(input=names, output=output, params=params)


def test_a_job_writes_adapter_and_table_and_takes_up_its_own_checkpoint(bench, job, tmp_path):
    cfg = {"training": {**SETTINGS, "batch": {**SETTINGS["batch"], "off": 0}}, "reference": {"answer_tokens": 4}}
    method = registry.method("es2")
    finetune(bench.load(), method, cfg, job)
    adapter = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    table = pd.read_csv(job.output.table)
    assert table["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["kl_heldout"].notna().tolist() == [False, True] * 3
    assert table["kept"].all()
    assert np.isfinite(table["distance_ratio"]).all()
    assert not (tmp_path / "checkpoints").exists()

    class Interrupted(method):
        def loss(self, lm, examples, outputs):
            if (tmp_path / "checkpoints" / "checkpoint.safetensors").exists():
                raise KilledError
            return super().loss(lm, examples, outputs)

    Interrupted.__name__ = method.__name__
    with pytest.raises(KilledError):
        finetune(bench.load(), Interrupted, cfg, job)
    finetune(bench.load(), method, cfg, job)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes() == adapter
    pd.testing.assert_frame_equal(pd.read_csv(job.output.table), table)
    child = bench.load(adapter=tmp_path / "run" / "adapter")
    moved = extract_tokens(child, [bench.references["h0"].prompt_tokens]) - bench.embeddings.of(["h0"])
    assert moved.abs().max() > 0.01


def test_sets_without_answers_and_a_watch_without_prompts_are_user_errors(bench, job):
    prompts = pd.read_parquet(job.input.prompts[0])
    with pytest.raises(UserError, match="validation"):
        held_out(prompts[prompts["split"] == "defence"], bench.references, bench.embeddings)
    settings = {**SETTINGS, "batch": {"harm": 1, "plain": 1, "empty": 1}}
    with pytest.raises(UserError, match=r"training\.batch\.empty"):
        finetune(bench.load(), registry.method("es2"), {"training": settings, "reference": {"answer_tokens": 4}}, job)
