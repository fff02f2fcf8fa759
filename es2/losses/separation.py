"""The separation loss: harmful and safe embeddings further apart (ES2; method.md section 4).

    L_sep = -(1/|K|) sum_{k in K} D_k(H, S)

with D_k a mean Euclidean distance at layer k. The plain form can be won by blowing norms up, so a scale-free form
divides by the parent's own distance and a bounded form is a hinge at a target ratio to it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]


def pairwise_distance(harmful: Tensor, safe: Tensor) -> Tensor:
    """Mean Euclidean distance [K] over all pairs of `harmful` [K, m, d] and `safe` [K, n, d]."""
    pairs = torch.cdist(harmful, safe, compute_mode="donot_use_mm_for_euclid_dist")
    return pairs.mean(dim=(1, 2))


def centroid_distance(harmful: Tensor, safe: Tensor) -> Tensor:
    """Euclidean distance [K] between the means of `harmful` [K, m, d] and `safe` [K, n, d]."""
    return torch.linalg.vector_norm(harmful.mean(dim=1) - safe.mean(dim=1), dim=-1)


DISTANCES: dict[str, Distance] = {"pairwise": pairwise_distance, "centroid": centroid_distance}


def plain(distance: Tensor, _parent: Tensor, _target: float) -> Tensor:
    """The paper's form: minus the mean distance over layers [K], in units of the residual stream."""
    return -distance.mean()


def scale_free(distance: Tensor, parent: Tensor, _target: float) -> Tensor:
    """Minus the mean over layers of distance [K] over the parent's distance [K]."""
    return -(distance / parent).mean()


def bounded(distance: Tensor, parent: Tensor, target: float) -> Tensor:
    """Hinge: mean over layers of relu(target - distance / parent's distance); zero once the target is reached."""
    return torch.relu(target - distance / parent).mean()


FORMS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "plain": plain,
    "scale_free": scale_free,
    "bounded": bounded,
}
