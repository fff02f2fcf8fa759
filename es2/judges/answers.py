"""From answers to verdicts: the table that every rate is made from, without any text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from es2.errors import UserError
from es2.judges.registry import Judge
from es2.judges.verdict import Verdict

RUN_COLUMNS = ("run", "model", "method", "parent", "seed")
ANSWER_COLUMNS = (
    "attack",
    "fitted_on",
    "setting",
    "budget",
    "realised",
    "control",
    "draw",
    "benchmark",
    "split",
)
VERDICT_COLUMNS = (*RUN_COLUMNS, *ANSWER_COLUMNS, "prompt_id", "cluster", "verdict", "judge")


def judge_answers(
    answers: Iterable[Mapping[str, Any]],
    prompts: Sequence[pd.DataFrame],
    judge: Judge,
    row: Mapping[str, Any],
    name: str,
) -> pd.DataFrame:
    """Verdict of `judge` (in the config: `name`) on each answer, with the columns `VERDICT_COLUMNS`.

    prompts: tables with prompt_id, prompt, cluster; row: run, model, method, parent, seed of the run that
    answered. An answer that is not there (None) has the verdict `missing`. UserError where a prompt is
    unknown.
    """
    known = {
        key: (text, int(cluster))
        for table in prompts
        for key, text, cluster in zip(table["prompt_id"], table["prompt"], table["cluster"], strict=True)
    }
    head = {column: row[column] for column in RUN_COLUMNS}
    out, pairs = [], []
    for answer in answers:
        key = answer["prompt_id"]
        if key not in known:
            raise UserError(f"answers of {row['run']}: prompt {key} is in no prompt set; make the answers anew.")
        text, cluster = known[key]
        pairs.append((text, answer["answer"]))
        told = {column: answer.get(column) for column in ANSWER_COLUMNS}
        out.append(head | told | {"prompt_id": key, "cluster": cluster, "judge": name})
    # Asked once about all answers, and only where every answer has its prompt: a judge may be a model.
    verdicts = iter(judge.judge_all([(text, said) for text, said in pairs if said is not None]))
    found = [Verdict.MISSING if said is None else next(verdicts) for _, said in pairs]
    table = pd.DataFrame(out, columns=[column for column in VERDICT_COLUMNS if column != "verdict"])
    return table.assign(verdict=list(map(str, found)))[list(VERDICT_COLUMNS)]
