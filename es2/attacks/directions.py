"""Directions fitted on the attack split: from the mean embedding of harmful prompts to that of safe ones.

The refusal direction of Arditi et al. (2024, arXiv:2406.11717) is such a difference of means, at one of the tokens that
the chat template puts after a prompt.
"""

import torch
from torch import Tensor

from es2.attacks.base import Evaluation, embeddings_of
from es2.embeddings import extract_last, harmful_of, unit_difference


def mean_difference(evaluation: Evaluation, shuffle: int | None = None) -> Tensor:
    """Unit vectors [L, d] of every layer from the harmful prompts' mean embedding towards the safe prompts', at the
    last token of the chat template; see `mean_differences`."""
    return mean_differences(evaluation, 1, shuffle)[0]


def mean_differences(evaluation: Evaluation, count: int, shuffle: int | None = None) -> Tensor:
    """The same at each of the last `count` tokens of the chat template, the last first: [count, L, d].

    Of the model that the attack is fitted on; another than the attacked one is loaded where earlier tokens are read.

    With `shuffle`, a seed, the control: half of each class takes the other's label. A plain permutation would not do,
    for its groups hold unequal shares of the classes, and what tells the classes apart is most of what varies.
    """
    harmful = harmful_of(evaluation.fit)
    if shuffle is not None:
        harmful = half_of_each(harmful, shuffle)
    source = evaluation.source
    found = [embeddings_of(source, evaluation.fit)]
    if count > 1:
        lm = source.load()
        found += extract_last(lm, lm.chat_tokens(evaluation.fit["prompt"].tolist()), count)[1:]
    return torch.stack([unit_difference(values, harmful) for values in found])


def half_of_each(labels: Tensor, seed: int) -> Tensor:
    """A mask [n] of a random half of each class of `labels` [n]; of an odd class the smaller half."""
    chosen = torch.zeros_like(labels)
    generator = torch.Generator().manual_seed(seed)
    for label in (False, True):
        places = torch.nonzero(labels == label)[:, 0]
        chosen[places[torch.randperm(len(places), generator=generator)[: len(places) // 2]]] = True
    return chosen
