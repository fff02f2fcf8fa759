"""The adaptive attacker: it chooses its setting again for each run, on validation (method.md section 6).

A fixed setting is a weaker attack on a model that was trained against it. Every setting is tried on a few prompts (and
at a few budgets, where the attack has one), the promising ones on all validation prompts (at every budget); the setting
with the most compliance (at each budget) is reported on test prompts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import pandas as pd
from torch import Tensor

from es2.attacks.base import Attacked, Evaluation
from es2.attacks.controls import replay_controls
from es2.generation import Answer
from es2.probes import ProbeSet


class Setting(Protocol):
    """A setting of an attack."""

    @property
    def name(self) -> str:
        """Short name for tables, unlike every other setting's."""
        ...


class BudgetSetting(Setting, Protocol):
    """A setting of an attack that can spend a budget."""

    @property
    def c(self) -> float:
        """The strength of the probes that it uses; their shuffled-label twin is its control."""
        ...

    def layers(self, probes: ProbeSet) -> list[int]:
        """The layers that it edits; with none it is no attack."""
        ...


S = TypeVar("S", bound=Setting)
B = TypeVar("B", bound=BudgetSetting)


@dataclass(frozen=True)
class Cell(Generic[S]):
    """One point of the search: a setting at a budget; not a number for an attack without one."""

    setting: S
    budget: float = math.nan


AnswerCells = Callable[[pd.DataFrame, Sequence[Cell[B]]], tuple[list[list[Answer]], Tensor]]
"""Answers to prompts (columns prompt_id, prompt) under each cell, and the norms of the edits [cells, n, L, T]."""


def evaluate_over_budgets(
    evaluation: Evaluation,
    candidates: Sequence[B],
    answer: AnswerCells[B],
    settings: Mapping[str, Any],
    bundle: Mapping[str, Any],
) -> Attacked:
    """Search on validation, then answers to the benchmarks at every budget under the setting chosen for it.

    settings: the attack's `budgets`, `control_budgets`, and `search` (see `choose_at_budgets`). A bundle without
    benchmarks is a search alone.
    """
    chosen, found = choose_at_budgets(evaluation, candidates, answer, settings["budgets"], settings["search"])
    rows = _test_rows(evaluation, chosen, answer, settings, bundle) if evaluation.benchmarks else []
    return Attacked(rows, found)


def choose_at_budgets(
    evaluation: Evaluation,
    candidates: Sequence[B],
    answer: AnswerCells[B],
    budgets: Sequence[float],
    search: Mapping[str, Any],
) -> tuple[dict[float, B], list[dict[str, Any]]]:
    """The setting that brings the most compliance on validation at each budget, and all trials.

    search: `first_budgets`, `first_prompts` and `keep` (see `kept`).
    """
    cells = [Cell(setting, budget) for setting in candidates for budget in search["first_budgets"]]
    first = trials(evaluation, cells, search["first_prompts"], 1, lambda *asked: answer(*asked)[0])
    tried = {budget: kept(first, candidates, budget, search["keep"]) for budget in budgets}
    cells = [Cell(setting, budget) for budget, some in tried.items() for setting in some]
    second = trials(evaluation, cells, len(evaluation.validation), 2, lambda *asked: answer(*asked)[0])
    chosen = {
        budget: best([row for row in second if row["budget"] == budget], some, budget, 1)[0]
        for budget, some in tried.items()
    }
    names = {budget: setting.name for budget, setting in chosen.items()}
    found = [{**row, "chosen": row["stage"] == 2 and row["setting"] == names[row["budget"]]} for row in first + second]
    return chosen, found


def choose(
    evaluation: Evaluation,
    candidates: Sequence[S],
    answer: Callable[[pd.DataFrame, Sequence[Cell[S]]], list[list[Answer]]],
    search: Mapping[str, int],
) -> tuple[S, list[dict[str, Any]]]:
    """The setting of an attack without a budget that brings the most compliance on validation, and all trials.

    search: `first_prompts` on which every candidate is tried, and how many are kept (`keep`) for all of them.
    """
    first = trials(evaluation, [Cell(setting) for setting in candidates], search["first_prompts"], 1, answer)
    kept_settings = _ranked(first, candidates)[: search["keep"]]
    second = trials(evaluation, [Cell(setting) for setting in kept_settings], len(evaluation.validation), 2, answer)
    chosen = _ranked(second, kept_settings)[0]
    found = [{**row, "chosen": row["stage"] == 2 and row["setting"] == chosen.name} for row in first + second]
    return chosen, found


def _ranked(found: Sequence[Mapping[str, Any]], settings: Sequence[S]) -> list[S]:
    """The settings, the one with the most compliance first; ties go to the earlier one."""
    score = {row["setting"]: row["compliance"] for row in found}
    return sorted(settings, key=lambda setting: -score[setting.name])


def by_cell(answers: Sequence[Answer], n_cells: int) -> list[list[Answer]]:
    """Answers to the same prompts under one cell after the other, cell by cell."""
    n_prompts = len(answers) // n_cells
    return [list(answers[start : start + n_prompts]) for start in range(0, len(answers), n_prompts)]


def kept(found: Sequence[Mapping[str, Any]], settings: Sequence[S], budget: float, most: int) -> list[S]:
    """What a budget tries in full: the `most` best of the first stage's nearest budget (by ratio), and the best of each
    other one. What wins at a small budget need not win at a large one, and near the floor all settings look alike."""
    near, *far = _nearest({row["budget"] for row in found}, budget)
    chosen = best(found, settings, near, most) + [best(found, settings, first, 1)[0] for first in far]
    return list(dict.fromkeys(chosen))


def best(found: Sequence[Mapping[str, Any]], settings: Sequence[S], budget: float, most: int) -> list[S]:
    """The settings with the most compliance at `budget`, one of those tried; ties go to the setting that is better at
    the budget next nearest, and in the end to the earlier one."""
    named = {setting.name: setting for setting in settings}
    score = pd.DataFrame(found).pivot_table(index="setting", columns="budget", values="compliance")
    in_order = [name for name in named if name in score.index]
    by = _nearest(score.columns, budget)
    ranked = score.loc[in_order].sort_values(by, ascending=False, kind="stable")
    return [named[name] for name in ranked.index[:most]]


def _nearest(tried: Any, budget: float) -> list[float]:
    """The budgets tried, the nearest by ratio first."""
    return sorted(tried, key=lambda one: abs(math.log(one / budget)))


def trials(
    evaluation: Evaluation,
    cells: Sequence[Cell[S]],
    n_prompts: int,
    stage: int,
    answer: Callable[[pd.DataFrame, Sequence[Cell[S]]], list[list[Answer]]],
) -> list[dict[str, Any]]:
    """Shares of the three verdicts on the first `n_prompts` validation prompts, for every cell."""
    prompts = evaluation.validation.iloc[:n_prompts]
    rows = []
    for cell, said in zip(cells, answer(prompts, cells), strict=True):
        verdicts = [evaluation.judge(text, one.text) for text, one in zip(prompts["prompt"], said, strict=True)]
        share = {name: verdicts.count(name) / len(verdicts) for name in ("refusal", "compliance", "degenerate")}
        rows.append({"stage": stage, "setting": cell.setting.name, "budget": cell.budget, "n": len(verdicts), **share})
    return rows


def _test_rows(
    evaluation: Evaluation,
    chosen: Mapping[float, B],
    answer: AnswerCells[B],
    settings: Mapping[str, Any],
    bundle: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Answer rows on test prompts at every budget, with controls at the budgets that ask for them."""
    prompts = evaluation.prompts()
    answers, steps = answer(prompts, [Cell(setting, budget) for budget, setting in chosen.items()])
    rows: list[dict[str, Any]] = []
    for place, (budget, setting) in enumerate(chosen.items()):
        about = {"fitted_on": evaluation.fitted_on, "setting": setting.name, "budget": budget}
        realised = budget if setting.layers(evaluation.probes[evaluation.fitted_on]) else 0.0
        rows += evaluation.rows(prompts, answers[place], **about, realised=realised)
        if budget in settings["control_budgets"]:
            rows += replay_controls(evaluation, prompts, steps[place], setting.c, bundle["controls"], about)
    return rows
