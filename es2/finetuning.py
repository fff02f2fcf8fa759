"""One fine-tuning job: from the parent's files to an adapter and its training table."""

import hashlib
import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from es2.checkpoints import Checkpoints
from es2.embeddings import Embeddings, load_embeddings
from es2.errors import UserError
from es2.files import read_jsonl, sha256_file, write_csv
from es2.layers import chosen_layers
from es2.methods.base import Method, TrainingData
from es2.models import LanguageModel
from es2.prompts.tables import read_prompt_tables
from es2.reference import Reference, compliant_answers, load_references, of_prompts
from es2.training import HeldOut, Trained, add_lora, save_adapter, train

COLUMNS = [
    "step", "loss", "separation", "kl", "kl_refusals", "drift", "kl_heldout", "distance_ratio", "norm_ratio",
    "learning_rate",
]  # fmt: skip


def finetune(lm: LanguageModel, method: type[Method], cfg: Mapping[str, Any], job: Any) -> None:
    """Train the model (the parent, with its adapter trainable if it has one) and write its adapter.

    `job` has Snakemake's named input, output and params (row, code, checkpoints). A checkpoint is taken up only if
    settings, code and inputs are those it was made with.
    """
    settings, seed = cfg["training"], int(job.params.row["seed"])
    prompts = read_prompt_tables(job.input.prompts)
    references = load_references(job.input.answers, job.input.states)
    embeddings = load_embeddings(job.input.embeddings)
    torch.manual_seed(seed)
    if not hasattr(lm.model, "peft_config"):
        add_lora(lm, settings["lora"], seed)
    if settings["gradient_checkpointing"]:
        lm.checkpoint_blocks()
    layers = training_layers(settings, job.input.layers, lm.n_layers)
    refusals = [tokens for path in job.input.refusals for tokens in refusal_tokens(lm, path, cfg["answer_tokens"])]
    batch = {name: size for name, size in settings["batch"].items() if size}
    settings = {**settings, "batch": batch}
    compliant = {key: tokens for path in job.input.compliant for key, tokens in compliant_answers(path).items()}
    learner = method(settings, training_data(prompts, references, embeddings, layers, refusals, batch, compliant))
    pools = {name: _pool(prompts, references, name) for name in batch}
    files = [job.input.answers, job.input.states, job.input.embeddings, job.input.layers]
    files += [job.input.model, *job.input.adapter, *job.input.prompts, *job.input.refusals, *job.input.compliant]
    fingerprint = _fingerprint({**settings, "method": method.__name__}, job.params.code, seed, files)
    saved = Checkpoints(job.params.checkpoints, fingerprint)
    trained = train(lm, learner, pools, held_out(prompts, references, embeddings), settings, seed, saved)
    _write(lm, trained, job)
    saved.clear()


def training_layers(settings: Mapping[str, Any], path: str | Path, n_layers: int) -> list[int]:
    """The layers that a training acts on, by its settings and its parent's layers.json (`path`)."""
    layers = chosen_layers(settings["separation"]["layers"], path)
    if outside := [layer for layer in layers if not 0 <= layer < n_layers]:
        raise UserError(
            f"training.separation.layers: {outside} lie outside the model's layers 0..{n_layers - 1}; choose others"
        )
    return layers


def training_data(
    prompts: pd.DataFrame,
    references: Mapping[str, Reference],
    embeddings: Embeddings,
    layers: list[int],
    refusals: list[list[int]],
    sets: Collection[str],
    compliant: Mapping[str, list[int]],
) -> TrainingData:
    """What the method may learn from: the defence split of `sets`, the refusal texts, and `compliant` answers to the
    harmful prompts of that split."""
    defence = prompts[(prompts["split"] == "defence") & prompts["set"].isin(sets)]
    known = {reference.prompt_id: reference for reference in of_prompts(references, defence)}
    harmful = frozenset(defence[defence["label"] == "harmful"]["prompt_id"])
    answered = {key: tokens for key, tokens in compliant.items() if key in harmful and key in known}
    return TrainingData(harmful, known, refusals, embeddings, layers, answered)


def refusal_tokens(lm: LanguageModel, path: str | Path, most: int) -> list[list[int]]:
    """A file of refusal texts as tokens, `most` at most, with the end token where it is one of them."""
    texts = [row["text"] for row in read_jsonl(path)]
    tokens = [list(ids)[:most] for ids in lm.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return [[*ids, lm.tokenizer.eos_token_id] if len(ids) < most else ids for ids in tokens]


def held_out(prompts: pd.DataFrame, references: Mapping[str, Reference], embeddings: Embeddings) -> HeldOut:
    """The validation split's harmless prompts that the parent answered."""
    chosen = prompts[(prompts["split"] == "validation") & (prompts["label"] == "safe")]
    watched = of_prompts(references, chosen)
    if not watched:
        raise UserError(
            "prompt_sets: no harmless prompt of a validation split has the parent's answer, so that nothing would "
            "watch the training for collapse; give a safe set a validation split"
        )
    return HeldOut(watched, embeddings.of([reference.prompt_id for reference in watched]))


def _pool(prompts: pd.DataFrame, references: Mapping[str, Reference], name: str) -> list[str]:
    """The set's defence prompts, without harmless ones that the parent answered in a loop: not to be learnt."""
    defence = prompts[(prompts["set"] == name) & (prompts["split"] == "defence")]
    pool = [
        row.prompt_id
        for row in defence.itertuples()
        if row.prompt_id in references and (row.label == "harmful" or references[row.prompt_id].verdict != "degenerate")
    ]
    if not pool:
        raise UserError(f"training.batch.{name}: the set has no defence prompts that the parent answered; give it some")
    return pool


def _fingerprint(settings: Mapping[str, Any], code: str, seed: int, files: list[str]) -> str:
    parts = json.dumps([dict(settings), code, seed, [sha256_file(path) for path in files]], sort_keys=True, default=str)
    return hashlib.sha256(parts.encode()).hexdigest()


def _write(lm: LanguageModel, trained: Trained, job: Any) -> None:
    """Adapter and training table; said aloud if training stopped early."""
    if trained.stopped:
        print(f"stopped early: {trained.stopped}; the adapter of step {trained.steps} is kept", file=sys.stderr)
    table = pd.DataFrame(trained.rows)
    table = table.reindex(columns=[*COLUMNS, *[name for name in table if name not in COLUMNS]])
    table["kept"] = table["step"] <= trained.steps
    model = Path(job.input.model).parent.name
    save_adapter(lm, Path(job.output.adapter_config).parent, model)
    write_csv(table, job.output.table)
