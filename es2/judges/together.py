"""Verdicts of a judge that asks a model: all answers of a file at once, then the table that every judge makes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from es2.judges.answers import judge_answers
from es2.judges.registry import Judge, Pair
from es2.judges.verdict import Verdict


def judge_together(
    answers: Sequence[Mapping[str, Any]],
    prompts: Sequence[pd.DataFrame],
    judge: Judge,
    row: Mapping[str, Any],
    name: str,
) -> pd.DataFrame:
    """What `judge_answers` gives, by a judge that is asked once about all answers."""
    pairs: list[Pair] = []

    def note(asked: Sequence[Pair]) -> list[Verdict]:
        pairs.extend(asked)
        return [Verdict.MISSING] * len(asked)

    # The first table is for its pairs, and for its mistakes: no model is asked about a file that fits no prompt set.
    judge_answers(answers, prompts, replace(judge, judge_all=note), row, name)
    found = dict(zip(pairs, judge.judge_all(pairs), strict=True))
    known = replace(judge, judge_all=lambda asked: [found[pair] for pair in asked])
    return judge_answers(answers, prompts, known, row, name)
