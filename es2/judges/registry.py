"""A judge as the study asks it, by the row of a config that names one (modules: `es2.registry.JUDGES`)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from es2.errors import UserError
from es2.judges.verdict import Verdict
from es2.registry import JUDGES

Pair = tuple[str, str]
"""A prompt and the answer to it."""
JudgeAll = Callable[[Sequence[Pair]], list[Verdict]]
"""The verdicts on pairs, in their order."""


@dataclass(frozen=True)
class Judge:
    """A judge with its kind and version; `judge_all` gives the verdicts on pairs of prompt and answer.

    Of one that goes by odds, `odds_all` gives those of compliance, and beyond `threshold` they mean it.
    """

    kind: str
    version: str
    judge_all: JudgeAll
    odds_all: Callable[[Sequence[Pair]], list[float]] | None = None
    threshold: float = math.nan

    def judge(self, prompt: str, answer: str) -> Verdict:
        """The verdict on one answer."""
        return self.judge_all([(prompt, answer)])[0]


def one_by_one(judge: Callable[[str, str], Verdict]) -> JudgeAll:
    """`judge_all` of a judge that looks at each answer by itself."""
    return lambda pairs: [judge(*pair) for pair in pairs]


def load_judge(row: Mapping[str, Any], model: Mapping[str, Any] | None = None) -> Judge:
    """The judge of a config row `{kind: ..., options}`; UserError for an unknown kind or option.

    model: where a row names a model of the catalogue, that model's `manifest` (a path), `dtype` and `system_prompt`.
    """
    kind = row.get("kind")
    if kind not in JUDGES:
        raise UserError(f"judges: kind {kind!r} is unknown; known kinds are {', '.join(sorted(JUDGES))}.")
    module = import_module(JUDGES[kind])
    if hasattr(module, "odds") and row.get("threshold") is not None:
        odds_all = partial(module.odds, row=row, model=model)
        return Judge(kind, module.VERSION, module.load(row, model), odds_all, row["threshold"])
    if hasattr(module, "load"):
        return Judge(kind, module.VERSION, module.load(row, model))
    if extra := sorted(set(row) - {"kind"}):
        raise UserError(f"judges: {kind} takes no option {', '.join(extra)}; remove it.")
    return Judge(kind, module.VERSION, one_by_one(module.judge))
