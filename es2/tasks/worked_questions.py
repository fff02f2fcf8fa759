"""The 282 worked MMLU questions inside lm-eval's wheel, as multiple-choice questions without their solutions."""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import datasets

from es2.errors import UserError
from es2.files import read_json

MEMBER = "tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
N_QUESTIONS = 282
LETTERS = "ABCDE"  # one question of college chemistry has five choices, and the fifth is right

_QUESTION = re.compile(
    r"Q: (?P<question>.*?)\n\(A\) (?P<A>.*?)\s+\(B\) (?P<B>.*?)\s+\(C\) (?P<C>.*?)\s+\(D\) (?P<D>.*?)"
    r"(?:\s+\(E\) (?P<E>.*?))?\nA: Let's think step by step\..*The answer is \((?P<answer>[A-E])\)\.\s*",
    re.DOTALL,
)


def dataset(questions: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The questions as the harness wants them: {"test": rows of subject, question, choices, letters, answer}.

    questions is the JSON file, by default that of the installed wheel. Raises UserError if it is not the file of
    282 questions that the task is made for.
    """
    path = Path(questions) if questions else Path(str(resources.files("lm_eval"))) / MEMBER
    rows = parse(read_json(path))
    if len(rows) != N_QUESTIONS:
        raise UserError(
            f"ability.tasks.mmlu_worked: {path.name} holds {len(rows)} questions where {N_QUESTIONS} are expected; "
            f"take {MEMBER} of lm-eval 0.4.13"
        )
    return {"test": datasets.Dataset.from_list(rows)}


def parse(subjects: Mapping[str, str]) -> list[dict[str, Any]]:
    """Questions of {subject: few-shot text}, in the file's order; answer is the index of the right choice.

    Raises UserError at a question that cannot be read, so that none is lost unseen.
    """
    rows = []
    for subject, text in subjects.items():
        for block in re.split(r"\n\n(?=Q: )", text)[1:]:
            match = _QUESTION.fullmatch(block)
            if match is None:
                raise UserError(f"ability.tasks.mmlu_worked: a question on {subject} cannot be read: {block[:60]!r}")
            letters = [letter for letter in LETTERS if match[letter] is not None]
            rows.append(
                {
                    "subject": subject,
                    "question": match["question"].strip(),
                    "choices": [match[letter].strip() for letter in letters],
                    "letters": letters,
                    "answer": letters.index(match["answer"]),
                }
            )
    return rows
