"""At which token a run leaves its parent's refusals when the attacker's direction is ablated (method.md section 6).

A mean over an answer's tokens hides it: once the first token of a refusal is out, those after it follow.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from es2.attacks.ablation import ProjectionAttack
from es2.examples import run_examples
from es2.methods.base import kl_to_parent
from es2.models import LanguageModel
from es2.reference import Reference

MOST = 48  # refusals looked at; their prompts are of the defence split, which the run was trained on


def refusals_of(references: Sequence[Reference], most: int = MOST) -> list[Reference]:
    """At most `most` refusals of the references, evenly spread."""
    refused = [one for one in references if one.verdict == "refusal"]
    kept = min(most, len(refused))
    return [refused[place * len(refused) // kept] for place in range(kept)]


def measure_turning(lm: LanguageModel, refusals: Sequence[Reference], unit: Tensor) -> pd.DataFrame:
    """A row a `token` of the answer (from 1): over how many of the parent's refusals (`n`), and the mean KL to the
    parent in nats there, as the model is (`kl`) and with the direction `unit` [d] ablated (`kl_ablated`)."""
    token = [place + 1 for one in refusals for place in range(len(one.answer_tokens))]
    kl = _divergences(lm, refusals)
    with ProjectionAttack(unit).applied(lm):
        ablated = _divergences(lm, refusals)
    found = pd.DataFrame({"token": token, "n": 1, "kl": kl.numpy(), "kl_ablated": ablated.numpy()})
    return found.groupby("token", as_index=False).agg({"n": "sum", "kl": "mean", "kl_ablated": "mean"})


@torch.no_grad()
def _divergences(lm: LanguageModel, refusals: Sequence[Reference], batch_rows: int = 16) -> Tensor:
    """KL to the parent [t] at each token of the refusals, in order (float32, CPU)."""
    found = [torch.empty(0)]
    for start in range(0, len(refusals), batch_rows):
        examples = [one.example() for one in refusals[start : start + batch_rows]]
        found.append(kl_to_parent(lm, run_examples(lm, examples).final, examples).float().cpu())
    return torch.cat(found)
