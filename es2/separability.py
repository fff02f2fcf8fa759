"""How far harmful and safe prompts of one run lie apart (method.md §9): fit, choose layers, report.

Probes are fitted on the attack split, layers chosen on validation, figures reported on test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from es2.errors import UserError
from es2.layer_metrics import auroc, separability, table_row, weights_of
from es2.layers import LayerRule
from es2.probes import ProbeSet, fit_probe_set

SELECTION_METRICS = ("d_prime", "accuracy")


class EmbeddingTable(Protocol):
    """Embeddings by prompt id (`es2.embeddings.Embeddings`)."""

    def of(self, prompt_ids: Sequence[str]) -> Tensor:
        """Rows [m, L, d] of the prompts asked for, in that order."""


@dataclass(frozen=True)
class Settings:
    """All C of the probes and the one that the metrics use, P0, resamples, prompt sets, layer rule."""

    c: tuple[float, ...]
    metric_c: float
    p0: float
    bootstrap: int
    harmful_sets: tuple[str, ...]
    safe_sets: tuple[str, ...]
    layers: LayerRule

    @classmethod
    def of(cls, cfg: dict[str, Any]) -> "Settings":
        """Settings from the config's mapping, whose keys are the fields' names."""
        return cls(
            c=tuple(cfg["c"]),
            metric_c=float(cfg["metric_c"]),
            p0=float(cfg["p0"]),
            bootstrap=int(cfg["bootstrap"]),
            harmful_sets=tuple(cfg["harmful_sets"]),
            safe_sets=tuple(cfg["safe_sets"]),
            layers=LayerRule.of(cfg["layers"]),
        )


@dataclass(frozen=True)
class Measurement:
    """Probes, chosen layers, validation d' [L], and the table layer, metric, value, low, high, split."""

    probes: ProbeSet
    layers: list[int]
    validation_d_prime: list[float]
    table: pd.DataFrame


@dataclass(frozen=True)
class _Split:
    """One split's prompts: near-twin clusters [n], labels [n] (true = harmful), embeddings [n, L, d], base model's
    norms [n, L]."""

    texts: list[str]
    clusters: list[Any]
    harmful: Tensor
    embeddings: Tensor
    base_norm: Tensor


def measure(
    embeddings: EmbeddingTable, base: EmbeddingTable, prompts: pd.DataFrame, settings: Settings, seed: int
) -> Measurement:
    """Fit on the attack split, choose layers on validation, report on test, for one run.

    `prompts` has the columns prompt_id, prompt, set, label, split, cluster. The table has every metric for test, d'
    and accuracy (what a selection may use) for validation, and at layer -1 what the prompts' texts alone
    reach. UserError if a split lacks a class.
    """
    attack, validation, test = (
        _take(embeddings, base, prompts, settings, split) for split in ("attack", "validation", "test")
    )
    probes = fit_probe_set(
        attack.embeddings, attack.harmful, validation.embeddings, validation.harmful, settings.c, seed
    )
    index = probes.index(settings.metric_c)

    def table(split: _Split, name: str) -> pd.DataFrame:
        return separability(
            split.embeddings, split.harmful, probes.weight[index], probes.bias[index], split.base_norm,
            settings.p0, settings.bootstrap, seed, split.clusters,
        ).assign(split=name)  # fmt: skip

    selecting = table(validation, "validation").query("metric in @SELECTION_METRICS")
    d_prime = selecting.loc[selecting["metric"] == "d_prime", "value"].tolist()
    texts = text_baselines(
        attack.texts, attack.harmful, test.texts, test.harmful, settings.bootstrap, seed, test.clusters
    )
    return Measurement(
        probes=probes,
        layers=settings.layers.choose(d_prime),
        validation_d_prime=d_prime,
        table=pd.concat([texts.assign(split="test"), table(test, "test"), selecting], ignore_index=True),
    )


def text_baselines(
    fit_texts: Sequence[str],
    fit_harmful: Tensor,
    texts: Sequence[str],
    harmful: Tensor,
    n_resamples: int = 1000,
    seed: int = 0,
    clusters: Sequence[Any] | None = None,
) -> pd.DataFrame:
    """AUROC of what style alone tells, as rows at layer -1: the number of words, and a bag of words.

    Both are fitted on the first texts (for the length, its sign: whether harmful prompts are the longer ones)
    and reported on the second (of `clusters`). A probe that is no better has learnt style (method.md §3).
    """
    mask, fit_mask = harmful.bool().numpy(), fit_harmful.bool().numpy()
    weights = weights_of(harmful, clusters, n_resamples, seed)
    fit_length, length = (np.array([float(len(text.split())) for text in some]) for some in (fit_texts, texts))
    alone = weights_of(fit_harmful, None, 0, seed)
    sign = 1.0 if auroc(fit_length[fit_mask], fit_length[~fit_mask], alone)[0] >= 0.5 else -1.0
    words = CountVectorizer()
    model = LogisticRegression(max_iter=10_000).fit(words.fit_transform(fit_texts), fit_mask)
    bag = model.decision_function(words.transform(texts))
    scores = {"auroc_length": sign * length, "auroc_bag_of_words": bag}
    return pd.DataFrame(
        table_row(-1, metric, auroc(score[mask], score[~mask], weights)) for metric, score in scores.items()
    )


def _take(
    embeddings: EmbeddingTable, base: EmbeddingTable, prompts: pd.DataFrame, settings: Settings, split: str
) -> _Split:
    """One split's prompts of the sets that are measured."""
    sets = {"harmful": settings.harmful_sets, "safe": settings.safe_sets}
    rows = prompts[(prompts["split"] == split) & prompts["set"].isin(settings.harmful_sets + settings.safe_sets)]
    harmful = rows["set"].isin(settings.harmful_sets).to_numpy()
    for name, count in (("harmful", harmful.sum()), ("safe", (~harmful).sum())):
        if count < 2:
            raise UserError(
                f"prompt_sets: {count} {name} prompts in split {split} of {list(sets[name])}, and "
                "separability needs two: give one of these sets more"
            )
    ids = rows["prompt_id"].tolist()
    return _Split(
        texts=rows["prompt"].tolist(),
        clusters=rows["cluster"].tolist(),
        harmful=torch.tensor(harmful),
        embeddings=embeddings.of(ids),
        base_norm=base.of(ids).double().norm(dim=2),
    )
