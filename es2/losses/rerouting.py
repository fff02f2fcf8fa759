"""Losses on the states of all tokens: rerouting harmful ones, retaining the others (circuit breakers; RMU).

Circuit breakers (Zou et al. 2024, arXiv:2406.04313): with h the parent's states and h' the trained model's,

    L_s = mean ReLU(cos(h', h)) on harmful tokens        L_r = mean |h' - h| / mean |h| on retained ones
    L = c_s L_s + c_r r L_r,    c_s = alpha (1 - t / 2T),    c_r = alpha t / 2T    at optimizer step t of T

The paper's L_r is not divided by the norm, and r is 1: its models' states are short. The cosine is flat where training
begins, and a state some hundred long holds it there; divided, L_r means the same for every model, and r is tuned.
"""

import torch
from torch import Tensor


def rerouting_loss(states: Tensor, parent: Tensor) -> Tensor:
    """Mean over tokens [n] of ReLU(cos(h', h)) for states [n, d] and the parent's [n, d]."""
    return torch.relu(torch.cosine_similarity(states, parent, dim=-1)).mean()


def retain_loss(states: Tensor, parent: Tensor) -> Tensor:
    """Mean over tokens of |h' - h|, over the parent's mean norm, for states [n, d] and the parent's [n, d]."""
    return torch.linalg.vector_norm(states - parent, dim=-1).mean() / torch.linalg.vector_norm(parent, dim=-1).mean()


def random_target_loss(states: Tensor, parent: Tensor, unit: Tensor, scale: float) -> Tensor:
    """RMU's (Li et al. 2024, arXiv:2403.03218): mean of |h' - c u|^2 / c^2 with c = scale times the parent's mean norm.

    states, parent [n, d]; unit [d], a fixed random direction of length 1.
    """
    length = scale * torch.linalg.vector_norm(parent, dim=-1).mean()
    return ((states - length * unit) / length).square().sum(dim=-1).mean()


def schedule(alpha: float, step: int, steps: int) -> tuple[float, float]:
    """(c_s, c_r) at optimizer step `step`, from 0, of `steps`."""
    done = step / (2 * steps)
    return alpha * (1 - done), alpha * done
