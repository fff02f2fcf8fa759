"""The metrics of separability at every layer (method.md §9), with bootstrap intervals.

The metrics of layer k, for its probe w.e + b (harmful above 0) and the prompts' embeddings e:

- accuracy: share of prompts on their own side of the plane.
- auroc: chance that a harmful prompt has a higher logit than a safe one, ties counted half.
- tpr_at_1_fpr: share of harmful prompts above the lowest threshold that at most 1 % of the safe ones reach.
- margin: signed distance (w.e + b) / |w| to the plane, positive on the own side, over the mean norm |e|.
- d_prime: (m_H - m_S) / sqrt((s_H^2 + s_S^2) / 2) of the projections w.e.
- centroid_distance: |mu_H - mu_S|; centroid_over_norm: over the mean norm; centroid_over_spread: over the
  within-class spread, the root mean square distance of a prompt to its own centroid.
- scav_step: length of the SCAV step that takes a harmful prompt down to P0 (method.md §6), 0 where it is
  there already, mean over harmful prompts; scav_step_relative: each step over its own |e|.
- norm_ratio_to_base: mean norm over the base model's mean norm on the same prompts.

Means over both classes weigh the classes equally; variances divide by n - 1. The bootstrap draws clusters of
near-twin prompts within each class, for all layers alike; a resample is a vector of prompt weights, so that every
figure is a product of matrices.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]
Mean = Callable[[Array], Array]
PERCENTILES = (2.5, 97.5)
MAX_FPR = 0.01


@dataclass(frozen=True)
class Weights:
    """Resample weights, the data's own (all ones) in row 0: harmful [1 + R, n_H], safe [1 + R, n_S], each row adding up
    to n; and the number of each prompt's cluster, [n_H] and [n_S]."""

    harmful: Array
    safe: Array
    clusters: tuple[Places, Places]

    @classmethod
    def draw(cls, harmful: Sequence[Any], safe: Sequence[Any], n_resamples: int, seed: int) -> "Weights":
        """Multinomial counts of the clusters within each class; `harmful` and `safe` name each prompt's cluster."""
        rng = np.random.default_rng(seed)
        clusters = tuple(np.unique(np.asarray(names), return_inverse=True)[1] for names in (harmful, safe))

        def of_class(member: Places) -> Array:
            k = member.max() + 1
            counts = rng.multinomial(k, np.full(k, 1 / k), n_resamples)[:, member]
            return np.vstack([np.ones((1, len(member))), counts * (len(member) / counts.sum(axis=1, keepdims=True))])

        return cls(of_class(clusters[0]), of_class(clusters[1]), (clusters[0], clusters[1]))


def separability(
    embeddings: Tensor,
    harmful: Tensor,
    weight: Tensor,
    bias: Tensor,
    base_norm: Tensor,
    p0: float = 1e-4,
    n_resamples: int = 1000,
    seed: int = 0,
    clusters: Sequence[Any] | None = None,
) -> pd.DataFrame:
    """Every metric of this module at every layer: columns layer, metric, value, low, high (95 %).

    embeddings [n, L, d]; harmful [n]; the probe's weight [L, d] and bias [L]; base_norm [n, L]; clusters [n], where
    they are not given each prompt by itself. At least two prompts of each class.
    """
    mask = harmful.bool()
    weights = weights_of(mask, clusters, n_resamples, seed)
    rows = []
    for layer in range(embeddings.shape[1]):
        states = embeddings[:, layer].double()
        w, b = weight[layer].double(), float(bias[layer])
        norm, base = states.norm(dim=1).numpy(), base_norm[:, layer].double().numpy()
        projection, length = (states @ w).numpy(), float(w.norm())
        inside = mask.numpy()
        draws = _probe_metrics(projection, b, length, norm, inside, weights, p0)
        draws |= _geometry(states, norm, base, inside, weights)
        rows += [table_row(layer, metric, values) for metric, values in draws.items()]
    return pd.DataFrame(rows)


def weights_of(harmful: Tensor, clusters: Sequence[Any] | None, n_resamples: int, seed: int) -> Weights:
    """The resamples of prompts with labels `harmful` [n], by their clusters [n] or each by itself."""
    names = np.arange(len(harmful)) if clusters is None else np.asarray(clusters)
    inside = harmful.bool().numpy()
    return Weights.draw(names[inside], names[~inside], n_resamples, seed)


def auroc(harmful: Array, safe: Array, weights: Weights) -> Array:
    """AUROC [1 + R] of scores [n_H] over scores [n_S], the data's own first."""
    above = np.sign(harmful[:, None] - safe[None, :]) / 2 + 0.5
    wins: Array = np.einsum("rh,rh->r", weights.harmful, weights.safe @ above.T)
    return wins / (len(harmful) * len(safe))


def tpr_at_fpr(harmful: Array, safe: Array, weights: Weights, fpr: float = MAX_FPR) -> Array:
    """True positive rate [1 + R] at the lowest threshold that at most a share `fpr` of safe scores reach."""
    order = np.argsort(-safe, kind="stable")
    reached = np.cumsum(weights.safe[:, order], axis=1) > fpr * len(safe) + 1e-9
    # The threshold lies above the first safe score, from the top, that would be one false positive too many.
    limit = safe[order][reached.argmax(axis=1)]
    rank = np.argsort(-harmful, kind="stable")
    passed = np.searchsorted(-harmful[rank], -limit, side="left")
    total = np.pad(np.cumsum(weights.harmful[:, rank], axis=1), ((0, 0), (1, 0)))
    return np.asarray(total[np.arange(len(total)), passed] / len(harmful), dtype=np.float64)


def _probe_metrics(
    projection: Array, bias: float, length: float, norm: Array, harmful: Mask, weights: Weights, p0: float
) -> dict[str, Array]:
    """Metrics [1 + R] that read one layer's probe: projections w.e [n], |w|, and norms |e| [n]."""
    mean_h, mean_s, both = _means(harmful, weights)
    logit = projection + bias
    n_harmful, n_safe = weights.harmful.shape[1], weights.safe.shape[1]
    right = np.where(harmful, logit > 0, logit <= 0).astype(np.float64)
    own_side = np.where(harmful, logit, -logit) / max(length, np.finfo(float).tiny)
    step = np.maximum(logit - math.log(p0 / (1 - p0)), 0.0) / max(length, np.finfo(float).tiny)
    centred = projection - projection.mean()
    m_h, m_s = mean_h(centred), mean_s(centred)
    variance_h = (mean_h(centred**2) - m_h**2) * n_harmful / (n_harmful - 1)
    variance_s = (mean_s(centred**2) - m_s**2) * n_safe / (n_safe - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        d_prime = (m_h - m_s) / np.sqrt((variance_h + variance_s) / 2)
    return {
        "accuracy": (mean_h(right) * n_harmful + mean_s(right) * n_safe) / (n_harmful + n_safe),
        "auroc": auroc(logit[harmful], logit[~harmful], weights),
        "tpr_at_1_fpr": tpr_at_fpr(logit[harmful], logit[~harmful], weights),
        "margin": both(own_side) / both(norm),
        "d_prime": d_prime,
        "scav_step": mean_h(step),
        "scav_step_relative": mean_h(step / norm),
    }


def _geometry(states: Tensor, norm: Array, base_norm: Array, harmful: Mask, weights: Weights) -> dict[str, Array]:
    """Metrics [1 + R] that need no probe: centroids, spread and norms of one layer's states [n, d]."""
    mean_h, mean_s, both = _means(harmful, weights)
    centred = states - states.mean(dim=0)
    gram = (centred @ centred.T).numpy()
    n_harmful, n_safe = weights.harmful.shape[1], weights.safe.shape[1]
    share_h, share_s = weights.harmful / n_harmful, weights.safe / n_safe
    hh = _quadratic(share_h, gram[np.ix_(harmful, harmful)], share_h)
    ss = _quadratic(share_s, gram[np.ix_(~harmful, ~harmful)], share_s)
    hs = _quadratic(share_h, gram[np.ix_(harmful, ~harmful)], share_s)
    own = np.diagonal(gram)
    variance_h = (mean_h(own) - hh) * n_harmful / (n_harmful - 1)
    variance_s = (mean_s(own) - ss) * n_safe / (n_safe - 1)
    squared = hh + ss - 2 * hs
    # Resampling moves both centroids at random, which can only add to their squared distance, by this much on
    # average: taken off, or the interval of a small distance would lie above the distance itself.
    noise_h = variance_h * _design_effect(gram[np.ix_(harmful, harmful)], weights.clusters[0]) / n_harmful
    noise_s = variance_s * _design_effect(gram[np.ix_(~harmful, ~harmful)], weights.clusters[1]) / n_safe
    squared[1:] -= (noise_h + noise_s)[1:]
    distance = np.sqrt(np.maximum(squared, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        over_spread = distance / np.sqrt((variance_h + variance_s) / 2)
    return {
        "centroid_distance": distance,
        "centroid_over_norm": distance / both(norm),
        "centroid_over_spread": over_spread,
        "norm_ratio_to_base": both(norm) / both(base_norm),
    }


def _design_effect(gram: Array, member: Places) -> float:
    """How many times a mean varies under draws of clusters what it does under draws of single prompts, from the states'
    inner products [n, n] and each prompt's cluster [n]; 1 where no two are of one cluster."""
    centred = gram - gram.mean(axis=0) - gram.mean(axis=1, keepdims=True) + gram.mean()
    alone = float(np.trace(centred))
    if member.max() + 1 == len(member) or alone <= 0:
        return 1.0
    return float(centred[member[:, None] == member].sum()) / alone


def _quadratic(left: Array, matrix: Array, right: Array) -> Array:
    """left_r . matrix . right_r for every resample r."""
    return np.asarray(np.einsum("ri,ri->r", left @ matrix, right), dtype=np.float64)


def _means(harmful: Mask, weights: Weights) -> tuple[Mean, Mean, Mean]:
    """Weighted means [1 + R] of a quantity [n]: over harmful prompts, over safe ones, and between the two."""

    def of_harmful(values: Array) -> Array:
        return np.asarray(weights.harmful @ values[harmful] / weights.harmful.shape[1], dtype=np.float64)

    def of_safe(values: Array) -> Array:
        return np.asarray(weights.safe @ values[~harmful] / weights.safe.shape[1], dtype=np.float64)

    return of_harmful, of_safe, lambda values: (of_harmful(values) + of_safe(values)) / 2


def table_row(layer: int, metric: str, draws: Array) -> dict[str, Any]:
    """One row of the table from the figure (first) and its resamples."""
    low, high = np.nanpercentile(draws[1:], PERCENTILES) if np.isfinite(draws[1:]).any() else (np.nan, np.nan)
    return {
        "layer": layer,
        "metric": metric,
        "value": float(draws[0]),
        "low": float(low),
        "high": float(high),
    }
