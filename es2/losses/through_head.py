"""KL to the parent through the LM head in pieces of the vocabulary, which stay in the cache between two operations.

The naive way (es2.losses.divergence) passes a dozen times over tensors [tokens, |V|] in main memory and keeps five of
them for the backward pass; this keeps two. Value and gradient are the same up to rounding:

    KL = E_p[c - q] - logsumexp(c) + logsumexp(q),    dKL/dc = p (c - q - E_p[c - q])

with the child's logits c, p = softmax(c), and the parent's logits q.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from es2.losses.divergence import kl_divergence
from es2.models import HEAD_PIECE, LanguageModel

PIECE = {"cpu": HEAD_PIECE}  # of the vocabulary
LARGE_PIECE = 32768  # on a device whose kernels are slow to start


def kl_through_head(lm: LanguageModel, states: Tensor, parent: Tensor) -> Tensor:
    """KL(p_finetuned || p_parent) in nats at each position [t], from post-norm final states [t, d] of both."""
    head = lm.base.get_output_embeddings()
    parent = parent.to(states.device, states.dtype)
    if type(head) is not nn.Linear or head.weight.requires_grad or lm.logit_cap is not None:
        with torch.no_grad():
            reference = lm.logits(parent)
        return kl_divergence(lm.logits(states), reference)
    kl: Tensor = _Pieces.apply(states, parent, head.weight, head.bias, lm.logit_factor)
    return kl


class _Sums:
    """Running sums over the pieces of a vocabulary, [t] each: the largest logit, the sum of exponentials below it, and
    where asked for that of exponentials times weights."""

    def __init__(self, like: Tensor) -> None:
        self.top = like.new_full((len(like),), -torch.inf, dtype=torch.float32)
        self.exponentials, self.weighted = torch.zeros_like(self.top), torch.zeros_like(self.top)

    def add(self, logits: Tensor, weights: Tensor | None = None) -> Tensor:
        """The piece's exponentials [t, v], in the place of its logits."""
        top = torch.maximum(self.top, logits.amax(dim=1))
        shrink = (self.top - top).exp()
        logits.sub_(top[:, None]).exp_()
        self.top, self.exponentials = top, self.exponentials * shrink + logits.sum(dim=1)
        if weights is not None:
            self.weighted = self.weighted * shrink + (logits * weights).sum(dim=1)
        return logits

    def log(self) -> Tensor:
        """logsumexp [t]."""
        return self.top + self.exponentials.log()


class _Pieces(torch.autograd.Function):
    """See the module; gradients to the child's states alone."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, parent: Tensor, weight: Tensor, bias: Tensor | None, factor: float) -> Tensor:
        child, reference = _Sums(states), _Sums(states)
        kept = []
        for part in _parts(weight):
            rows, added = weight[part], None if bias is None else bias[part]
            logits, held = (linear(each, rows, added).float().mul_(factor) for each in (states, parent))
            gap = logits - held
            reference.add(held)
            exponentials = child.add(logits, gap)
            if ctx.needs_input_grad[0]:
                kept += [exponentials, gap, child.top]
        mean = child.weighted / child.exponentials
        ctx.save_for_backward(weight, mean, child.top, child.exponentials, *kept)
        ctx.factor = factor
        return mean - child.log() + reference.log()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, mean, top, total, *kept = ctx.saved_tensors
        scale = gradients[0] * ctx.factor / total
        of_states = weight.new_zeros(len(mean), weight.shape[1])
        for index, part in enumerate(_parts(weight)):
            exponentials, gap, then = kept[3 * index : 3 * index + 3]
            share = (scale * (then - top).exp())[:, None]
            of_logits = (gap - mean[:, None]).mul_(exponentials).mul_(share)
            of_states.addmm_(of_logits.to(weight.dtype), weight[part])
        return of_states, None, None, None, None


def _parts(weight: Tensor) -> Iterator[slice]:
    """The pieces of a vocabulary of len(weight) tokens."""
    size = PIECE.get(weight.device.type, LARGE_PIECE)
    return (slice(start, start + size) for start in range(0, len(weight), size))
