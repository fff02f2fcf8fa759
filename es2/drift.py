"""How far a run has moved from its parent and from the base on held-out harmless answers (method.md section 8)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from es2.examples import Outputs, run_examples
from es2.losses.divergence import kl_divergence
from es2.models import LanguageModel
from es2.reference import Reference


@torch.no_grad()
def measure_drift(
    lm: LanguageModel, references: Mapping[str, Sequence[Reference]], batch_rows: int = 16
) -> list[dict[str, Any]]:
    """Rows (task, prompt_id, value) a prompt, for every named reference ("base", "parent") on its own answers.

    Tasks: kl_to_<name> (KL(p_run || p_reference), nats, mean over answer tokens), first_token_kl_to_<name>,
    agreement_with_<name> (share of answer tokens that stay the greedy choice); and on the base's answers perplexity
    and bits_per_byte of the run.
    """
    rows: list[dict[str, Any]] = []
    for name, wanted in references.items():
        ordered = sorted(wanted, key=lambda one: len(one.prompt_tokens) + len(one.answer_tokens))
        for start in range(0, len(ordered), batch_rows):
            rows += _drift_of(lm, name, ordered[start : start + batch_rows])
    return rows


def _drift_of(lm: LanguageModel, name: str, part: Sequence[Reference]) -> list[dict[str, Any]]:
    outputs = run_examples(lm, [reference.example() for reference in part])
    logits = lm.logits(outputs.final)
    kl = kl_divergence(logits, lm.logits(torch.cat([one.states for one in part]).to(outputs.final)))
    agrees = (logits.argmax(dim=-1) == outputs.targets).float()
    surprise = torch.nn.functional.cross_entropy(logits.float(), outputs.targets, reduction="none")
    rows = []
    for place, reference in enumerate(part):
        values = {
            f"kl_to_{name}": _mean(kl, outputs, place),
            f"first_token_kl_to_{name}": kl[((outputs.rows == place) & outputs.first).to(kl.device)].item(),
            f"agreement_with_{name}": _mean(agrees, outputs, place),
        }
        if name == "base":
            nats = surprise[(outputs.rows == place).to(surprise.device)]
            text = lm.tokenizer.decode(reference.answer_tokens, skip_special_tokens=True)
            values["perplexity"] = math.exp(nats.mean().item())
            values["bits_per_byte"] = nats.sum().item() / math.log(2) / max(1, len(text.encode()))
        rows += [{"task": task, "prompt_id": reference.prompt_id, "value": value} for task, value in values.items()]
    return rows


def _mean(values: Tensor, outputs: Outputs, place: int) -> float:
    return float(values[(outputs.rows == place).to(values.device)].mean())
