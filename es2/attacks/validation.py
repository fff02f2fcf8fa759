"""No attack, on validation prompts: what trials of training settings are chosen by, so that no test prompt is seen."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from es2.attacks.base import Attacked, Evaluation


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Answers to the harmful and the harmless validation prompts as they are."""
    prompts = pd.concat([evaluation.validation, evaluation.harmless], ignore_index=True)
    prompts = prompts.assign(benchmark=prompts["set"])
    return Attacked(evaluation.rows(prompts, evaluation.answer(prompts["prompt"].tolist())))
