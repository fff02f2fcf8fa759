"""General ability: lm-evaluation-harness on the model in memory, one result a question (method.md section 8)."""

import contextlib
import difflib
import importlib.metadata
import io
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lm_eval.evaluator import evaluate as run_harness
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from torch import Tensor

from es2.errors import UserError
from es2.models import LanguageModel
from es2.tasks import worked_questions

TASK_FOLDER = Path(worked_questions.__file__).parent
SCORES = ("acc", "exact_match")  # a question is right if the first of these that its task measures is 1
FEWSHOT_SEED = 1234  # the harness's own default
DIGITS = 6


@dataclass(frozen=True)
class AbilityTask:
    """One task of the harness: its name there or in es2/tasks, how many questions (None: all), and for a task of
    es2/tasks the file that its questions are read from (None: the installed package's).
    """

    name: str
    limit: int | None = None
    questions: str | None = None


def tasks_from_config(rows: Mapping[str, Mapping[str, Any]], sources: Mapping[str, str]) -> list[AbilityTask]:
    """Tasks from the config's `ability.tasks` {name: {limit: number or "all", source}} and {source: fetched file}."""
    return [
        AbilityTask(name, None if row["limit"] == "all" else row["limit"], sources.get(row["source"] or ""))
        for name, row in rows.items()
    ]


class LastPositionsLM(HFLM):  # type: ignore[misc]
    """HFLM that runs the LM head only at the positions that can predict a continuation.

    The harness slices the scored positions off the end of the logits, and for a batch of questions that is one
    position of each: without this the head costs as much as a quarter of a small model, and [b, t, |V|] in memory.
    """

    def _loglikelihood_tokens(self, requests: Sequence[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        self._longest_continuation = max((len(continuation) for *_, continuation in requests), default=1)
        scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, *args, **kwargs)
        return scores

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Logits [b, kept, |V|] of right-padded tokens [b, t]; kept reaches back to the shortest row's scored ones."""
        padding = int((inps.flip(1).cumsum(1) == 0).sum(1).max())
        kept = min(inps.shape[1], padding + self._longest_continuation)
        with torch.no_grad():
            logits: Tensor = self.model(inps, logits_to_keep=kept, use_cache=False).logits
        return logits


def evaluate(
    lm: LanguageModel, tasks: Sequence[AbilityTask], batch_rows: int = 8, max_length: int | None = None
) -> dict[str, Any]:
    """Every question's result, and the versions that it hangs on.

    {"tasks": {name: {"n", "chance", "samples": [{"doc_id", "correct" 0 or 1, "logprob_correct" (nats, log p of the
    right choice), "logprob_normalised" (its log softmax over the choices)}]}}, "versions": {"lm_eval", task: version}};
    chance is that of a guess among the choices, averaged over questions. Where a task has no choices to compare,
    chance and both log-probabilities are None. Plain prompts, without the chat template.

    Raises UserError for a task that does not exist, has no right or wrong, or whose questions cannot be had.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    results: dict[str, Any] = {}
    versions: dict[str, Any] = {"lm_eval": importlib.metadata.version("lm_eval")}
    harness = LastPositionsLM(pretrained=lm.base, tokenizer=lm.tokenizer, batch_size=batch_rows, max_length=max_length)
    with _quiet_unless_terminal():
        loaded = [load_tasks(task) for task in tasks]
        found = [
            run_harness(lm=harness, task_dict=one, limit=task.limit, bootstrap_iters=0)
            for task, one in zip(tasks, loaded, strict=True)
        ]
    for task, result in zip(tasks, found, strict=True):
        samples = [_sample(task.name, leaf, row) for leaf, rows in result["samples"].items() for row in _once(rows)]
        chances = [chance for chance, _ in samples if chance is not None]
        results[task.name] = {
            "n": len(samples),
            "chance": round(math.fsum(chances) / len(chances), DIGITS) if chances else None,
            "samples": [sample for _, sample in samples],
        }
        versions |= result["versions"]
    return {"tasks": results, "versions": versions}


def load_tasks(task: AbilityTask) -> Any:
    """The harness's task, or every member of a group, with its questions.

    Set up as `simple_evaluate` does, which also lists the machine, its packages and its repository by subprocesses.
    """
    manager = _manager(task)
    try:
        loaded = manager.load([task.name])
    except (OSError, ValueError) as error:  # a data set that is not on this machine and cannot be fetched
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"ability.tasks.{task.name}: its questions cannot be had ({reason}); fetch them beforehand into the "
            "Hugging Face cache, or leave the task out"
        ) from error
    for member in loaded["tasks"].values():
        if member.get_config("num_fewshot") is None:
            member.set_config(key="num_fewshot", value=0)
        member.set_fewshot_seed(seed=FEWSHOT_SEED)
    return loaded


def _manager(task: AbilityTask) -> TaskManager:
    """What knows the task: our own folder, or else the harness. Raises UserError if neither does."""
    own = TaskManager(include_path=str(TASK_FOLDER), include_defaults=False, metadata={"questions": task.questions})
    if task.name in own.all_tasks:
        return own
    harness = _harness_tasks()
    if task.name not in harness.all_tasks:
        near = difflib.get_close_matches(task.name, harness.all_tasks, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` lists what there is"
        raise UserError(f"ability.tasks.{task.name}: lm-evaluation-harness has no task of this name; {hint}")
    return harness


@cache
def _harness_tasks() -> TaskManager:
    """The harness's thousands of tasks, which take it ten seconds to index."""
    return TaskManager()


def _once(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each question once, in order: a task with several answer filters logs it once for each."""
    first: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault(row["doc_id"], row)
    return [first[doc_id] for doc_id in sorted(first)]


def _sample(name: str, leaf: str, row: Mapping[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """Chance of a guess and the result of one question; in a group its id carries the member task's name."""
    measure = next((measure for measure in SCORES if measure in row), None)
    if measure is None:
        raise UserError(
            f"ability.tasks.{name}: {leaf} measures {', '.join(row['metrics'])}, which does not say right or wrong of "
            "each question; choose a multiple-choice or exact-match task"
        )
    # Some tasks call a share `acc`, such as the probability of all right choices: cut to a whole number it would be 0.
    if row[measure] not in (0, 1):
        raise UserError(
            f"ability.tasks.{name}: the {measure} of {leaf} at question {row['doc_id']} is {row[measure]}, neither "
            "right (1) nor wrong (0); choose a task that scores each question so, as truthfulqa_mc1 for truthfulqa_mc2"
        )
    chance, logprob, normalised = None, None, None
    if isinstance(row["target"], int) and len(row["filtered_resps"]) > 1:
        scores = [float(value) for value, _ in row["filtered_resps"]]
        logprob = scores[row["target"]]
        normalised = round(logprob - _logsumexp(scores), DIGITS)
        chance, logprob = 1 / len(scores), round(logprob, DIGITS)
    return chance, {
        "doc_id": row["doc_id"] if leaf == name else f"{leaf}:{row['doc_id']}",
        "correct": int(row[measure]),
        "logprob_correct": logprob,
        "logprob_normalised": normalised,
    }


def _logsumexp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


@contextlib.contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """Keep the harness's progress bars out of log files."""
    if sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
