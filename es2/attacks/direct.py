"""The direct request: the prompt as it is."""

from collections.abc import Mapping
from typing import Any

from es2.attacks.base import Attacked, Evaluation


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Answers to every benchmark prompt without any attack."""
    prompts = evaluation.prompts()
    return Attacked(evaluation.rows(prompts, evaluation.answer(prompts["prompt"].tolist())))
