"""Probes of all layers with their bootstrap, against a loop over scikit-learn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from torch import Tensor

from bench.measure import Comparison, expect_close
from bench.scene import SEED, Scene, study
from es2.embeddings import extract
from es2.layer_metrics import PERCENTILES, Weights, separability
from es2.probes import fit_probe_set, probe_logit

PROBABILITY_BOUND, INTERVAL_BOUND = 1e-4, 1e-6
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Embeddings [n, L, d] and labels [n] (true = the look-dangerous prompts, in the place of harmful ones)."""

    embeddings: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Probed:
    """Test probabilities [nC, n, L] of the probes and of those on shuffled labels, validation accuracy [nC, L], and
    test accuracy and AUROC [L, 2, 3] of the probes with the metrics' C: value, low, high."""

    probability: Tensor
    shuffled: Tensor
    validation: Tensor
    intervals: Tensor


@dataclass(frozen=True)
class Task:
    """What is fitted, chosen and reported on; every C, and the one that the metrics use; resamples."""

    fit: Split
    validation: Split
    test: Split
    c: tuple[float, ...]
    metric_c: float
    p0: float
    resamples: int

    def shuffled_labels(self) -> Tensor:
        """The fit's labels in the order of es2.probes' control."""
        labels = self.fit.labels
        return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))]

    def draws(self) -> list[Array]:
        """Rows of the test split in each resample: those of es2.layer_metrics, harmful ones first."""
        labels = self.test.labels.numpy()
        harmful, safe = np.flatnonzero(labels), np.flatnonzero(~labels)
        weights = Weights.draw(range(len(harmful)), range(len(safe)), self.resamples, SEED)
        both = zip(weights.harmful.astype(int), weights.safe.astype(int), strict=True)
        return [np.concatenate([np.repeat(harmful, h), np.repeat(safe, s)]) for h, s in both]


def fast(task: Task) -> Probed:
    """Our path. It makes nine more metrics with intervals on the way, which the anchor does not."""
    test = task.test
    probes = fit_probe_set(
        task.fit.embeddings, task.fit.labels, task.validation.embeddings, task.validation.labels, task.c, SEED
    )
    at = probes.index(task.metric_c)
    norm = test.embeddings.double().norm(dim=2)
    table = separability(
        test.embeddings, test.labels, probes.weight[at], probes.bias[at], norm, task.p0, task.resamples, SEED
    )
    wanted = [table[table["metric"] == name][["value", "low", "high"]].to_numpy() for name in ("accuracy", "auroc")]
    return Probed(
        torch.sigmoid(probes.logit(test.embeddings)),
        torch.sigmoid(probe_logit(probes.shuffled_weight, probes.shuffled_bias, test.embeddings)),
        probes.accuracy,
        torch.tensor(np.stack(wanted, axis=1)),
    )


def scikit_learn_loop(task: Task, draws: Sequence[Array]) -> Probed:
    """Anchor: a fit for each layer, each C and both labellings, and two metrics on each resample of the test split."""
    labels = task.test.labels.numpy()
    n_layers = task.test.embeddings.shape[1]
    probability, shuffled = (np.zeros((len(task.c), len(labels), n_layers)) for _ in "ab")
    validation, intervals = np.zeros((len(task.c), n_layers)), np.zeros((n_layers, 2, 3))
    for layer in range(n_layers):
        fit, val, test = (
            split.embeddings[:, layer].double().numpy() for split in (task.fit, task.validation, task.test)
        )
        scale = np.sqrt(np.mean(fit**2))
        fit, val, test = fit / scale, val / scale, test / scale
        for i, c in enumerate(task.c):
            model = _fitted(fit, task.fit.labels.numpy(), c)
            probability[i, :, layer] = model.predict_proba(test)[:, 1]
            validation[i, layer] = model.score(val, task.validation.labels.numpy())
            shuffled[i, :, layer] = _fitted(fit, task.shuffled_labels().numpy(), c).predict_proba(test)[:, 1]
            if c == task.metric_c:
                score = model.decision_function(test)
        metrics = [
            (accuracy_score(labels[rows], score[rows] > 0), roc_auc_score(labels[rows], score[rows])) for rows in draws
        ]
        intervals[layer, :, 0] = metrics[0]
        intervals[layer, :, 1:] = np.percentile(metrics[1:], PERCENTILES, axis=0).T
    return Probed(*(torch.tensor(part) for part in (probability, shuffled, validation, intervals)))


def _fitted(rows: Array, labels: Array, c: float) -> LogisticRegression:
    """The fastest solver here at the tolerance that equality takes: at the default one, probabilities are off by up to
    0.06, and lbfgs, the default solver, takes three times as long to come as near."""
    return LogisticRegression(C=c, solver="newton-cholesky", tol=1e-8, max_iter=1000).fit(rows, labels)


def check(found: Probed, expected: Probed) -> None:
    """Probabilities, validation accuracy, and the intervals of two metrics."""
    expect_close("probability", found.probability, expected.probability, PROBABILITY_BOUND)
    expect_close("probability with shuffled labels", found.shuffled, expected.shuffled, PROBABILITY_BOUND)
    expect_close("validation accuracy", found.validation, expected.validation, INTERVAL_BOUND)
    expect_close("an interval of accuracy or AUROC", found.intervals, expected.intervals, INTERVAL_BOUND)


def task_of(scene: Scene) -> Task:
    """Plain against look-dangerous prompts under the default study's settings, with fewer resamples than its 1,000:
    the loop would take minutes. Both sides draw as few, which favours the loop: its time grows with them."""
    sizes, settings = scene.sizes, study()["probes"]
    counts = (sizes.fit, sizes.validation, sizes.test)
    kinds = [extract(scene.lm, kind[: sum(counts)]).split(counts) for kind in (scene.look_dangerous, scene.plain)]
    fit, validation, test = (
        Split(torch.cat([harmful, safe]), torch.arange(len(harmful) + len(safe)) < len(harmful))
        for harmful, safe in zip(*kinds, strict=True)
    )
    c = tuple(float(value) for value in settings["c"])
    return Task(fit, validation, test, c, float(settings["metric_c"]), float(settings["p0"]), sizes.resamples)


def comparisons(scene: Scene) -> Iterator[Comparison]:
    """The loop against es2.probes and es2.layer_metrics; both run on the CPU."""
    task = task_of(scene)
    draws = task.draws()
    yield Comparison(
        "probes",
        "scikit_learn_loop",
        lambda: fast(task),
        lambda: scikit_learn_loop(task, draws),
        check,
        scene.sizes.slow_repetitions,
    )
