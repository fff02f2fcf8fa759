"""Directions fitted on the attack split: from the mean embedding of harmful prompts to that of safe ones.

The refusal direction of Arditi et al. (2024, arXiv:2406.11717) is such a difference of means, at the last prompt token.
"""

import torch
from torch import Tensor

from es2.attacks.base import Evaluation, embeddings_of


def mean_difference(evaluation: Evaluation, shuffle: int | None = None) -> Tensor:
    """Unit vectors [L, d] of every layer from the harmful prompts' mean embedding towards the safe prompts'.

    With `shuffle`, a seed, the labels are permuted: the control.
    """
    embeddings = embeddings_of(evaluation, evaluation.fit)
    harmful = torch.tensor((evaluation.fit["label"] == "harmful").to_numpy())
    if shuffle is not None:
        harmful = harmful[torch.randperm(len(harmful), generator=torch.Generator().manual_seed(shuffle))]
    difference = embeddings[~harmful].mean(dim=0) - embeddings[harmful].mean(dim=0)
    return difference / difference.norm(dim=-1, keepdim=True)
