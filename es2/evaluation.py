"""One evaluation job: a bundle of attack x benchmark cells on one loaded model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from es2 import registry
from es2.attacks.base import Evaluation, Source
from es2.embeddings import Embeddings
from es2.errors import UserError
from es2.judges.registry import load_judge
from es2.models import LanguageModel
from es2.probes import ProbeSet
from es2.vllm_answers import Write

SEARCH_COLUMNS = ["stage", "setting", "budget", "n", "refusal", "compliance", "degenerate", "chosen"]


def evaluate_bundle(
    lm: LanguageModel,
    cfg: Mapping[str, Any],
    row: Mapping[str, Any],
    prompts: pd.DataFrame,
    probes: Mapping[str, ProbeSet],
    embeddings: Embeddings | None,
    progress: Callable[[int], None] | None = None,
    sources: Mapping[str, Source] | None = None,
    targets: Mapping[str, list[int]] | None = None,
    files: Sequence[str] = (),
    write: Write | None = None,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Answer rows and the attacker's search table of one bundle.

    cfg: `attack` and `bundle` (with `benchmarks`, `controls`) rows of the config, `generation`, `judge`, and
    `attacker_sets`, the sets on whose attack and validation splits the attacker fits and chooses. probes: fitted on
    "self", "base", "parent". sources, targets, files, write: see es2.attacks.base.Evaluation.
    """
    bundle = cfg["bundle"]
    known = prompts[prompts["set"].isin(cfg["attacker_sets"])].reset_index(drop=True)
    validation, harmful = known["split"] == "validation", known["label"] == "harmful"
    evaluation = Evaluation(
        lm=lm,
        row=row,
        attack=bundle["attack"],
        benchmarks={name: benchmark(prompts, name, most) for name, most in bundle["benchmarks"].items() if most},
        validation=known[validation & harmful].reset_index(drop=True),
        fit=known[known["split"] == "attack"].reset_index(drop=True),
        harmless=known[validation & ~harmful].reset_index(drop=True),
        probes=probes,
        embeddings=embeddings,
        judge=load_judge(cfg["judge"]).judge,
        max_new_tokens=cfg["generation"]["max_new_tokens"],
        batch_rows=cfg["generation"]["batch_rows"],
        seed=int(row["seed"]),
        progress=progress,
        sources=sources or {},
        targets=targets or {},
        files=files,
        write=write,
    )
    attacked = registry.attack(cfg["attack"]["kind"]).evaluate(evaluation, cfg["attack"], bundle)
    return attacked.rows, pd.DataFrame(attacked.search, columns=SEARCH_COLUMNS)


def benchmark(prompts: pd.DataFrame, name: str, most: int | str) -> pd.DataFrame:
    """The first `most` (or "all") test prompts of a set; UserError if there are none."""
    test = prompts[(prompts["set"] == name) & (prompts["split"] == "test")]
    if test.empty:
        raise UserError(f"bundles: the prompt set {name} has no test prompts; give it a test split")
    return (test if most == "all" else test.head(int(most))).reset_index(drop=True)
