"""Triplet losses on the states of all tokens (after Simko et al. 2025, arXiv:2506.11938).

With h the parent's states, h' the trained model's, c the mean of the harmful h' in the batch, and d(a, b) = |a - b|
over the parent's mean norm:

    L_safe = mean ReLU(d(h', h) - d(h', c) + m_safe)            over tokens of safe prompts
    L_harmful = mean ReLU(d(h', c) - d(h', h) + m_harmful)      over tokens of harmful prompts

Safe states stay where they were and away from the harmful ones; harmful states gather, away from where they were.
"""

import torch
from torch import Tensor


def triplet_losses(
    safe: Tensor, safe_parent: Tensor, harmful: Tensor, harmful_parent: Tensor, margins: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """(L_safe, L_harmful) from states [n, d] and [m, d] with the parent's; margins are (m_safe, m_harmful)."""
    norm = torch.linalg.vector_norm(torch.cat([safe_parent, harmful_parent]), dim=-1).mean()
    centre = harmful.mean(dim=0)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vector_norm(a - b, dim=-1) / norm

    on_safe = torch.relu(distance(safe, safe_parent) - distance(safe, centre) + margins[0])
    on_harmful = torch.relu(distance(harmful, centre) - distance(harmful, harmful_parent) + margins[1])
    return on_safe.mean(), on_harmful.mean()
