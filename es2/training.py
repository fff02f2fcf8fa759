"""One training loop for every method: same data order, LoRA, optimizer, stop rules and checkpoints."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from es2.checkpoints import Checkpoints, Rows, trainable
from es2.embeddings import extract_tokens
from es2.errors import UserError
from es2.examples import run_examples
from es2.losses.through_head import kl_through_head
from es2.low_rank import fuse
from es2.methods.base import Method
from es2.models import LanguageModel
from es2.reference import Reference


@dataclass(frozen=True)
class HeldOut:
    """Held-out harmless prompts that watch the training: the parent's references and embeddings [n, L, d] to them."""

    references: Sequence[Reference]
    embeddings: Tensor


def add_lora(lm: LanguageModel, lora: Mapping[str, Any], seed: int) -> None:
    """Put a fresh LoRA adapter on a model; at its start the model's logits are unchanged."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["targets"],
        task_type="CAUSAL_LM",
    )
    lm.model = get_peft_model(lm.model, config)
    fuse(lm.model)
    if any(parameter.requires_grad for parameter in lm.base.get_output_embeddings().parameters()):
        raise UserError(
            "training.lora.targets: the LM head must stay frozen, for the parent's logits are recomputed through it; "
            "take it off the list"
        )


def draw_batch(
    pools: Mapping[str, Sequence[str]], sizes: Mapping[str, int], seed: int, step: int
) -> list[tuple[str, int]]:
    """Prompt ids of one step, each with a random number: a function of seed and step alone, so that a resumed run and
    every method see the same data. Each set is gone through in a new order every epoch.
    """
    chosen = []
    for place, (name, size) in enumerate(sorted(sizes.items())):
        pool = sorted(pools[name])
        for index in range(step * size, (step + 1) * size):
            epoch, offset = divmod(index, len(pool))
            order = np.random.default_rng([seed, place, epoch]).permutation(len(pool))
            number = int(np.random.default_rng([seed, place, epoch, offset]).integers(1 << 31))
            chosen.append((pool[order[offset]], number))
    return chosen


def learning_rate(settings: Mapping[str, Any], step: int) -> float:
    """Linear warm-up, then constant or (`decay: linear`) a straight line to zero."""
    rate = float(settings["learning_rate"]) * min(1.0, (step + 1) / max(1, settings["warmup_steps"]))
    if settings["decay"] == "linear":
        rate *= 1 - step / settings["steps"]
    return rate


@torch.no_grad()
def watch(lm: LanguageModel, held_out: HeldOut) -> dict[str, float]:
    """Held-out KL to the parent (nats, mean over answer tokens), and the ratio of the embeddings' norms to its own at
    the layer where it is furthest from 1."""
    total, count = 0.0, 0
    references = list(held_out.references)
    for start in range(0, len(references), 16):
        part = references[start : start + 16]
        outputs = run_examples(lm, [reference.example() for reference in part])
        kl = kl_through_head(lm, outputs.final, torch.cat([reference.states for reference in part]))
        total, count = total + kl.sum().item(), count + len(kl)
    values = extract_tokens(lm, [reference.prompt_tokens for reference in references])
    norms = values.norm(dim=-1).mean(dim=0) / held_out.embeddings.norm(dim=-1).mean(dim=0)
    return {"kl_heldout": total / max(1, count), "norm_ratio": norms[norms.log().abs().argmax()].item()}


def collapse(row: Mapping[str, float], stop: Mapping[str, float]) -> str | None:
    """Why training must stop, or None: a non-finite loss, held-out KL or norm ratio beyond its bound."""
    if not math.isfinite(row["loss"]):
        return f"the loss is {row['loss']} at step {row['step']}"
    if not row.get("kl_heldout", 0.0) <= stop["kl_heldout"]:  # not a number is a collapse too
        return (
            f"KL on held-out harmless prompts is {row['kl_heldout']:.3g} nats at step {row['step']}, "
            f"bound {stop['kl_heldout']}"
        )
    ratio = row.get("norm_ratio", 1.0)
    if not 1 / stop["norm_ratio"] <= ratio <= stop["norm_ratio"]:
        return (
            f"the embeddings' norm is {ratio:.3g} times the parent's at step {row['step']}, bound {stop['norm_ratio']}"
        )
    return None


@dataclass(frozen=True)
class Trained:
    """The table of a training run, the steps behind the adapter that was kept, and why it stopped early, if it did."""

    rows: Rows
    steps: int
    stopped: str | None


def train(
    lm: LanguageModel,
    method: Method,
    pools: Mapping[str, Sequence[str]],
    held_out: HeldOut,
    settings: Mapping[str, Any],
    seed: int,
    checkpoints: Checkpoints,
) -> Trained:
    """Fine-tune the model's adapter in place by `method`.

    On collapse (see `collapse`) the adapter goes back to the last that passed the watch, and the reason is returned.
    """
    batches = [
        draw_batch(pools, settings["batch"], seed, number)
        for number in range(settings["steps"] * settings["accumulate"])
    ]
    method.prepare(lm, [one for batch in batches for one in batch])
    parameters = trainable(lm.model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.0, weight_decay=settings["weight_decay"])
    done, rows, best = checkpoints.load(lm.model, optimizer)
    best = best or _copy(parameters)
    bar = tqdm(total=settings["steps"], initial=done, desc="fine-tuning", unit="step", file=sys.stderr, mininterval=5)
    stopped = None
    for step in range(done, settings["steps"]):
        method.begin(lm, step, settings["steps"])
        each = settings["accumulate"]
        row = _step(lm, method, optimizer, batches[step * each : (step + 1) * each], settings, step)
        last = step + 1 == settings["steps"]
        if last or (step + 1) % settings["evaluate_every"] == 0:
            row |= watch(lm, held_out)
        rows.append(row)
        if stopped := collapse(row, settings["stop"]):
            _restore(lm.model, best)
            break
        if "kl_heldout" in row:
            best = _copy(parameters)
        bar.update()
        bar.set_postfix(
            {key: f"{row[key]:.3g}" for key in ("loss", "kl", "distance_ratio") if key in row}, refresh=False
        )
        if not last and (step + 1) % settings["checkpoint_every"] == 0:
            checkpoints.save(step + 1, lm.model, optimizer, rows, best)
    bar.close()
    kept = [int(row["step"]) for row in rows if "kl_heldout" in row and not collapse(row, settings["stop"])]
    return Trained(rows, max(kept, default=0), stopped)


def _step(
    lm: LanguageModel,
    method: Method,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Sequence[tuple[str, int]]],
    settings: Mapping[str, Any],
    step: int,
) -> dict[str, Any]:
    """One optimizer step on the mean loss of its batches; its row of the training table (no timings, so that two runs
    are equal)."""
    rate = learning_rate(settings, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    lm.model.train()
    sums: dict[str, float] = {}
    for batch in batches:
        examples = [method.example(prompt_id, number) for prompt_id, number in batch]
        loss = method.loss(lm, examples, method.run(lm, examples))
        value = loss.total.item()
        for name, part in {"loss": value, **loss.parts}.items():
            sums[name] = sums.get(name, 0.0) + part / len(batches)
        if math.isfinite(value):
            (loss.total / len(batches)).backward()
    if math.isfinite(sums["loss"]):
        nn.utils.clip_grad_norm_(trainable(lm.model).values(), settings["clip"])
        optimizer.step()
    optimizer.zero_grad()
    lm.model.eval()
    return {"step": step + 1, **sums, "learning_rate": rate}


def _copy(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in parameters.items()}


def _restore(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(values[name])


def save_adapter(lm: LanguageModel, folder: str | Path, base_name: str) -> None:
    """Write the adapter in peft's format, relative to the shipped base that `base_name` names.

    peft keeps the adapted modules as a set, whose order changes from process to process: they are sorted.
    """
    config = lm.model.peft_config["default"]
    config.base_model_name_or_path = base_name
    config.target_modules = sorted(config.target_modules)
    lm.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
