"""What an attack is to the evaluation: given a model and its context, answers under the attack."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from torch import Tensor

from es2.embeddings import Embeddings
from es2.errors import UserError
from es2.generation import Answer, generate
from es2.models import LanguageModel
from es2.names import SELF
from es2.probes import ProbeSet


@dataclass(frozen=True)
class Source:
    """A model that an attack is fitted on: its embeddings, and how to load it, for an attack that has to ask it."""

    embeddings: Embeddings | None
    load: Callable[[], LanguageModel]


@dataclass
class Evaluation:
    """One model under evaluation: its run, the prompts, and what the attacker may fit on.

    attack: its name in the config; benchmarks: test prompts by set (columns prompt_id, prompt, split); validation:
    harmful validation prompts, on which the attacker chooses; fit: the attack split (column label too), on which
    directions are fitted; harmless: safe validation prompts, on which side effects are watched; probes: {"self" |
    "parent" | "base": ProbeSet}; embeddings: the model's own (those of the defence split too where others are trained
    on it); sources: the other models that the attack is fitted on, by the same names; targets: answer tokens of the
    untrained model by prompt id, where it complied, for attacks that aim at an answer; files: those that the attack's
    config names; write: answers token sequences in place of our own generation, if it is there.
    """

    lm: LanguageModel
    row: Mapping[str, Any]
    attack: str
    benchmarks: Mapping[str, pd.DataFrame]
    validation: pd.DataFrame
    fit: pd.DataFrame
    harmless: pd.DataFrame
    probes: Mapping[str, ProbeSet]
    embeddings: Embeddings | None
    judge: Callable[[str, str], str]
    max_new_tokens: int
    batch_rows: int
    seed: int
    progress: Callable[[int], None] | None = None
    sources: Mapping[str, Source] = field(default_factory=dict)
    targets: Mapping[str, list[int]] = field(default_factory=dict)
    files: Sequence[str] = ()
    write: Callable[[Sequence[Sequence[int]]], list[Answer]] | None = None

    @property
    def fitted_on(self) -> str:
        """The model that an attack which searches is fitted on, by name: "self", or "parent" or "base", whose probes,
        directions or vectors it takes to the attacked run. How far it pushes, and which setting it takes, are told by
        the attacked run alone."""
        return next(iter(self.probes), SELF)

    @property
    def source(self) -> Source:
        """That model."""
        return Source(self.embeddings, lambda: self.lm) if self.fitted_on == SELF else self.sources[self.fitted_on]

    def prompts(self) -> pd.DataFrame:
        """All benchmark prompts in one frame, with a column `benchmark`; none where a bundle searches alone."""
        if not self.benchmarks:
            return self.validation.iloc[:0].assign(benchmark="")
        return pd.concat([frame.assign(benchmark=name) for name, frame in self.benchmarks.items()], ignore_index=True)

    def answer(
        self, prompts: Sequence[str], prefix: Sequence[int] = (), groups: Sequence[int] | None = None
    ) -> list[Answer]:
        """Greedy answers to `prompts`, under whatever attack is applied to the model; what follows a `prefix` (tokens)
        that the attacker puts into the answer's mouth, if there is one. `groups`: see `generate`."""
        return self.complete([[*ids, *prefix] for ids in self.lm.chat_tokens(prompts)], groups)

    def complete(self, sequences: Sequence[Sequence[int]], groups: Sequence[int] | None = None) -> list[Answer]:
        """Greedy answers to token sequences; `groups`: see `generate`."""
        if self.write is not None:
            answers = self.write(sequences)
            if self.progress is not None:
                self.progress(len(answers))
            return answers
        return generate(self.lm, sequences, self.max_new_tokens, self.batch_rows, self.progress, groups=groups)

    def rows(self, prompts: pd.DataFrame, answers: Sequence[Answer], **about: Any) -> list[dict[str, Any]]:
        """Answer rows for the file: who, how the attack was set (`about`: scalars or one value a prompt), answer."""
        columns = {key: np.broadcast_to(np.asarray(value, dtype=object), len(prompts)) for key, value in about.items()}
        empty = {"fitted_on": "", "setting": "", "budget": None, "realised": None, "control": "", "draw": 0}
        found = []
        for place, (prompt, answer) in enumerate(zip(prompts.itertuples(), answers, strict=True)):
            found.append(
                {
                    "run": self.row["run"],
                    "model": self.row["model"],
                    "seed": self.row["seed"],
                    "attack": self.attack,
                    **empty,
                    **{key: values[place] for key, values in columns.items()},
                    "benchmark": prompt.benchmark,
                    "split": prompt.split,
                    "prompt_id": prompt.prompt_id,
                    "answer": answer.text,
                    "n_tokens": len(answer.tokens),
                    "finished": answer.finished,
                }
            )
        return found


@dataclass(frozen=True)
class Attacked:
    """Answers under an attack, and the attacker's trials on validation (`search.csv`; may be empty)."""

    rows: list[dict[str, Any]]
    search: list[dict[str, Any]] = field(default_factory=list)


class AttackModule(Protocol):
    """An attack file: `evaluate` answers the benchmarks under the attack, fitted as the settings say."""

    def evaluate(self, evaluation: Evaluation, settings: Mapping[str, Any], bundle: Mapping[str, Any]) -> Attacked: ...


class Applied(Protocol):
    """Something that attacks a model within a `with` block."""

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[None]: ...


def answer_under(evaluation: Evaluation, attack: Applied, prompts: Sequence[str]) -> list[Answer]:
    """Answers to `prompts` with `attack` applied; row i of the attack belongs to prompt i."""
    with attack.applied(evaluation.lm):
        return evaluation.answer(prompts)


def embeddings_of(model: Evaluation | Source, prompts: pd.DataFrame) -> Tensor:
    """Unedited embeddings [n, L, d] of a frame's prompts: those of the attacked model, or of what it is attacked by."""
    embeddings = model.embeddings
    if embeddings is None:
        raise UserError("bundles: this attack needs the run's embeddings; its `fitted_on` list must not be empty")
    return embeddings.of(prompts["prompt_id"].tolist())
