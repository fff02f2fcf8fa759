"""Terms that hold a model where it was: KL to its parent's logits, and drift of its embeddings."""

import torch
from torch import Tensor


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(p_finetuned || p_reference) in nats at each position [t], from logits [t, |V|] (ES2's direction)."""
    log_p = torch.log_softmax(logits.float(), dim=-1)
    log_q = torch.log_softmax(reference.float(), dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def relative_drift(states: Tensor, parent: Tensor) -> Tensor:
    """Mean of |e - e_parent| / |e_parent| over embeddings [..., d]."""
    moved = torch.linalg.vector_norm(states - parent, dim=-1)
    return (moved / torch.linalg.vector_norm(parent, dim=-1)).mean()
