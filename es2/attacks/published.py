"""Published prompt attacks, replayed from a file in the JailbreakBench artefact format: never adaptive (section 6).

The file is one JSON object whose `jailbreaks` list has, for each `goal`, the `prompt` that some attack found against
some model (null where it found none; such goals are left out, and the tables say how many prompts there were). Each
prompt stands for the benchmark prompt whose text its goal is. (Chao et al. 2024, arXiv:2404.01318.)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from es2.attacks.base import Attacked, Evaluation
from es2.errors import UserError
from es2.prompts.cleaning import normalise


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Answers to the published prompts, each counted for the benchmark prompt that it attacks."""
    found = read_artefact(evaluation.files[0], evaluation.attack)
    prompts = evaluation.prompts()
    prompts = prompts.assign(attacked=[found.get(normalise(text)) for text in prompts["prompt"]])
    prompts = prompts[prompts["attacked"].notna()].reset_index(drop=True)
    if prompts.empty:
        raise UserError(
            f"attacks.{evaluation.attack}.source: none of its goals is a prompt of the bundle's benchmarks; name the "
            "benchmark that the file attacks"
        )
    answers = evaluation.answer(prompts["attacked"].tolist())
    return Attacked(evaluation.rows(prompts, answers, setting=settings["source"]))


def read_artefact(path: str | Path, name: str) -> dict[str, str]:
    """{normalised goal: prompt}; UserError if the file has not that form."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["jailbreaks"]
        pairs = [(str(row["goal"]), row["prompt"]) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"attacks.{name}.source: {Path(path).name} is no JailbreakBench artefact (a JSON object with the list "
            "`jailbreaks`, each row with `goal` and `prompt`); give such a file"
        ) from error
    return {normalise(goal): prompt for goal, prompt in pairs if prompt}
