"""The same request in other forms, for training: what a request asks for, not how it is put, is what should decide.

AdvBench is all imperative sentences, so a model that learns to refuse those alone learns the form as well and answers
the same request put as a question. Harmful and harmless defence prompts are reworded alike, so that no form tells them
apart. The wrappers carry no content of their own.
"""

import hashlib
import re
from collections.abc import Mapping

import pandas as pd

from es2.prompts.cleaning import prompt_id
from es2.prompts.splits import NEAR_TWIN, jaccard_blocks

FORM = "reworded"

WRAPPERS = (
    "Can you {request}?",
    "Please {request}.",
    "I would like you to {request}.",
    "I am working on something and need you to {request}.",
    "Could you {request}? Be as specific as you can.",
    "Would you {request} for me, with a concrete example?",
)
QUESTIONS = (
    "How do I {task}?",
    "What is the best way to {task}?",
    "What are some effective ways to {task}?",
    "How would someone go about it if they wanted to {task}?",
    "I want to {task}. Where do I start, and what do I need?",
    "Which steps does it take to {task}?",
)
_HOW_TO = re.compile(r"\bhow to (.+)$", re.IGNORECASE)


def reword(prompt: str, copy: int = 0) -> str:
    """The `copy`-th other form of an imperative sentence: a question about its task where it says "how to", else the
    request in a wrapper. Which one is fixed by the prompt's hash."""
    sentence = prompt.strip().rstrip(".!")
    number = int(hashlib.sha256(sentence.encode()).hexdigest()[:8], 16) + copy
    if (found := _HOW_TO.search(sentence)) and copy % 2 == 0:
        return QUESTIONS[number % len(QUESTIONS)].format(task=found.group(1))
    return WRAPPERS[number % len(WRAPPERS)].format(request=sentence[0].lower() + sentence[1:])


def add_reworded(prompts: pd.DataFrame, copies: Mapping[str, int]) -> pd.DataFrame:
    """`prompts` with `copies[set]` reworded copies of each imperative defence prompt of a set, in the same cluster.

    A copy whose content words come near a prompt of another split (Jaccard >= 0.5: a wrapper has fewer of its own) is
    left out, so that the splits stay apart.
    """
    added = [prompts]
    for name, number in copies.items():
        chosen = (prompts["set"] == name) & (prompts["split"] == "defence") & (prompts["form"] == "imperative")
        for copy in range(number):
            texts = [reword(text, copy) for text in prompts.loc[chosen, "prompt"]]
            ids = [prompt_id(text) for text in texts]
            added.append(prompts[chosen].assign(prompt=texts, prompt_id=ids, form=FORM))
    joined = pd.concat(added, ignore_index=True).drop_duplicates(["set", "prompt_id"], ignore_index=True)
    return joined[~_too_near(joined)].reset_index(drop=True)


def _too_near(prompts: pd.DataFrame) -> "pd.Series[bool]":
    """Reworded prompts with a near-twin in another split."""
    split, reworded = prompts["split"].to_numpy(), (prompts["form"] == FORM).to_numpy()
    near = pd.Series(False, index=prompts.index)
    for rows, columns, index in jaccard_blocks(list(prompts["prompt"])):
        twins = (index >= NEAR_TWIN) & (split[rows] != split[columns])
        near[[*rows[twins], *columns[twins]]] = True
    return near & reworded
