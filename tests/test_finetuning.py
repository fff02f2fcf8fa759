"""One fine-tuning job: its layers, refusals, files, and errors."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from training_bench import SETTINGS, KilledError

from es2 import registry
from es2.embeddings import extract_tokens, save_embeddings
from es2.errors import UserError
from es2.files import write_json, write_jsonl
from es2.finetuning import finetune, held_out, refusal_tokens, training_layers
from es2.reference import save_references


def test_training_layers(tmp_path):
    path = tmp_path / "layers.json"
    write_json(path, {"layers": [3, 5]})
    assert training_layers({"separation": {"layers": "auto"}}, path, 6) == [3, 5]
    assert training_layers({"separation": {"layers": [0, 2]}}, path, 6) == [0, 2]
    with pytest.raises(UserError, match=r"\[6\] lie outside"):
        training_layers({"separation": {"layers": [1, 6]}}, path, 6)


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
    save_embeddings(tmp_path / "embeddings.safetensors", bench.embeddings.prompt_ids, [bench.embeddings.values])
    write_json(tmp_path / "layers.json", {"layers": [0, 2]})
    write_json(tmp_path / "tiny" / "manifest.json", {"files": {}})
    write_jsonl(tmp_path / "refusals.jsonl", [{"text": "I will not."}])
    names = SimpleNamespace(
        prompts=[tmp_path / "prompts.parquet"],
        answers=answers,
        states=states,
        embeddings=tmp_path / "embeddings.safetensors",
        layers=tmp_path / "layers.json",
        refusals=[tmp_path / "refusals.jsonl"],
        compliant=[],
        model=str(tmp_path / "tiny" / "manifest.json"),
        adapter=[],
    )
    output = SimpleNamespace(
        adapter_config=tmp_path / "run" / "adapter" / "adapter_config.json", table=tmp_path / "run" / "training.csv"
    )
    row = {"run": "es2", "model": "tiny", "method": "es2", "parent": "base", "seed": 0}
    params = SimpleNamespace(row=row, code="abc", checkpoints=str(tmp_path / "checkpoints"))
    return SimpleNamespace(input=names, output=output, params=params)


def test_a_job_writes_adapter_and_table_and_takes_up_its_own_checkpoint(bench, job, tmp_path):
    cfg = {"training": {**SETTINGS, "batch": {**SETTINGS["batch"], "off": 0}}, "answer_tokens": 4}
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


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_job_checkpoints_gradients_if_the_config_says_so(bench, job, checkpointed):
    cfg = {"training": {**SETTINGS, "gradient_checkpointing": checkpointed}, "answer_tokens": 4}
    lm = bench.load()
    finetune(lm, registry.method("es2"), cfg, job)
    assert isinstance(lm.blocks[0].forward, partial) is checkpointed
    assert pd.read_csv(job.output.table)["kept"].all()


def test_sets_without_answers_and_a_watch_without_prompts_are_user_errors(bench, job):
    prompts = pd.read_parquet(job.input.prompts[0])
    with pytest.raises(UserError, match="validation"):
        held_out(prompts[prompts["split"] == "defence"], bench.references, bench.embeddings)
    settings = {**SETTINGS, "batch": {"harm": 1, "plain": 1, "empty": 1}}
    with pytest.raises(UserError, match=r"training\.batch\.empty"):
        finetune(bench.load(), registry.method("es2"), {"training": settings, "answer_tokens": 4}, job)
