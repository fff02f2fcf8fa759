"""Prefill: the attacker begins the answer with a willing sentence, and the model goes on (section 6).

Which of the sentences is chosen for each run on validation. What is judged is what the model adds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from es2.attacks.base import Attacked, Evaluation
from es2.attacks.search import Cell, choose
from es2.generation import Answer
from es2.names import SELF


@dataclass(frozen=True)
class Prefix:
    """A beginning of an answer; the `name` in the tables is the text itself."""

    name: str


def evaluate(evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked:
    """Search the prefix on validation, then what the model adds to it on the benchmarks. A bundle without benchmarks
    is a search alone."""

    def under(prefix: Prefix, texts: Sequence[str]) -> list[Answer]:
        tokens = evaluation.lm.tokenizer(prefix.name, add_special_tokens=False)["input_ids"]
        return evaluation.answer(texts, tokens)

    def answer(prompts: pd.DataFrame, cells: Sequence[Cell[Prefix]]) -> list[list[Answer]]:
        return [under(cell.setting, prompts["prompt"].tolist()) for cell in cells]

    candidates = [Prefix(text) for text in settings["prefixes"]]
    chosen, found = choose(evaluation, candidates, answer, settings["search"])
    if not evaluation.benchmarks:
        return Attacked([], found)
    prompts = evaluation.prompts()
    answers = under(chosen, prompts["prompt"].tolist())
    return Attacked(evaluation.rows(prompts, answers, fitted_on=SELF, setting=chosen.name), found)
