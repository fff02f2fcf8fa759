"""Linear probes harmful / safe at every layer (method.md §4).

Probe at layer k: P_k(harmful | e) = sigmoid(w_k.e + b_k), minimising 1/2 |w|^2 + C sum logloss with the
intercept unpenalised, on features divided by one scalar a layer (the rms entry of the fit set), folded back
into w.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import softplus

from es2.errors import UserError
from es2.tensors import write_tensors

TENSORS = (
    "weight", "bias", "accuracy", "mu_harmful", "mu_safe", "norm", "shuffled_weight", "shuffled_bias",
)  # fmt: skip


@dataclass(frozen=True)
class ProbeSet:
    """Probes of all layers L for every C in `c` (nC of them, ascending), float32.

    weight, shuffled_weight [nC, L, d]; bias, shuffled_bias [nC, L]; accuracy [nC, L] on validation;
    mu_harmful and mu_safe [nC, L], the mean of w.e over the attack split's harmful and safe prompts; norm
    [L], the mean |e| over the attack split. The shuffled probes are the control: the same fit on permuted
    labels.
    """

    c: tuple[float, ...]
    weight: Tensor
    bias: Tensor
    accuracy: Tensor
    mu_harmful: Tensor
    mu_safe: Tensor
    norm: Tensor
    shuffled_weight: Tensor
    shuffled_bias: Tensor

    def logit(self, embeddings: Tensor) -> Tensor:
        """Log-odds [nC, n, L] of harmful for embeddings [n, L, d]."""
        return probe_logit(self.weight, self.bias, embeddings)

    def index(self, c: float) -> int:
        """Place of one C on the first axis; UserError if no probe was fitted with it."""
        if c not in self.c:
            raise UserError(f"probes: no probe has C = {c:g} (probes.c has {list(self.c)}); add it there")
        return self.c.index(c)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, the list of C in its header."""
        write_tensors(path, {name: getattr(self, name) for name in TENSORS}, {"c": json.dumps(self.c)})

    @classmethod
    def load(cls, path: str | Path) -> "ProbeSet":
        """Read what `save` wrote."""
        with safe_open(str(path), framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in TENSORS}
            return cls(c=tuple(json.loads(stream.metadata()["c"])), **tensors)


def probe_logit(weight: Tensor, bias: Tensor, embeddings: Tensor) -> Tensor:
    """Log-odds w.e + b [nC, n, L] of weight [nC, L, d] and bias [nC, L] on embeddings [n, L, d]."""
    return torch.einsum("cld,nld->cnl", weight, embeddings) + bias[:, None]


def fit_probes(embeddings: Tensor, labels: Tensor, c: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Probes for all layers and every C: weight [nC, L, d] and bias [nC, L], in float32.

    embeddings [n, L, d]; labels [n], true = harmful. One reduction a layer serves all C: w lies in the span
    of the n prompts (representer theorem), so that Newton's method works in min(n, d) dimensions, exactly.
    UserError if an embedding is not finite or a class is empty.
    """
    return _fit(_Reduced.of(embeddings), labels, c)


def fit_probe_set(
    attack_embeddings: Tensor,
    attack_labels: Tensor,
    val_embeddings: Tensor,
    val_labels: Tensor,
    c: Sequence[float],
    seed: int,
) -> ProbeSet:
    """Fit on the attack split, take accuracy on validation, and fit the shuffled-label control (`seed`).

    Embeddings [n, L, d], labels [n] (true = harmful); `c` is sorted here.
    """
    ascending = tuple(sorted(float(value) for value in c))
    reduced = _Reduced.of(attack_embeddings)
    weight, bias = _fit(reduced, attack_labels, ascending)
    order = torch.randperm(len(attack_labels), generator=torch.Generator().manual_seed(seed))
    shuffled_weight, shuffled_bias = _fit(reduced, attack_labels[order], ascending)
    said = probe_logit(weight, bias, val_embeddings.float()) > 0
    projected = probe_logit(weight, torch.zeros_like(bias), attack_embeddings.float())
    return ProbeSet(
        c=ascending,
        weight=weight,
        bias=bias,
        accuracy=(said == val_labels.bool()[None, :, None]).float().mean(dim=1),
        mu_harmful=projected[:, attack_labels.bool()].mean(dim=1),
        mu_safe=projected[:, ~attack_labels.bool()].mean(dim=1),
        norm=attack_embeddings.float().norm(dim=2).mean(dim=0),
        shuffled_weight=shuffled_weight,
        shuffled_bias=shuffled_bias,
    )


@dataclass(frozen=True)
class _Reduced:
    """Features of all layers in an orthonormal basis of the prompts' span.

    x / scale = basis @ features: features [L, n, r], basis [L, d, r], scale [L], r = min(n, d), in float64.
    """

    features: Tensor
    basis: Tensor
    scale: Tensor

    @classmethod
    def of(cls, embeddings: Tensor) -> "_Reduced":
        """Reduce embeddings [n, L, d] by one thin QR a layer: as exact as an SVD at a fifth of its cost."""
        if not torch.isfinite(embeddings).all():
            raise UserError("probes: an embedding is not finite: the model has collapsed, so stop its training earlier")
        by_layer = embeddings.transpose(0, 1)
        scale = by_layer.double().square().mean(dim=(1, 2)).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        pairs = [torch.linalg.qr(rows.double().T / s) for rows, s in zip(by_layer, scale, strict=True)]
        features = torch.stack([triangle.T for _, triangle in pairs])
        return cls(features, torch.stack([basis for basis, _ in pairs]), scale)


def _fit(reduced: _Reduced, labels: Tensor, c: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Weight [nC, L, d] and bias [nC, L] for each C in turn; the ascending path starts each from the last."""
    harmful = labels.bool()
    if harmful.all() or not harmful.any():
        raise UserError("probes: the fit needs harmful and safe prompts; one class of the attack split is empty")
    if min(c) <= 0:
        raise UserError(f"probes.c: every C must be above 0, not {list(c)}")
    ones = torch.ones_like(reduced.features[..., :1])
    design = torch.cat([reduced.features, ones], dim=2)
    sign = torch.where(harmful, 1.0, -1.0).to(design)
    theta = torch.zeros(design.shape[0], design.shape[2], dtype=design.dtype)
    weights, biases = [], []
    for strength in sorted(c):
        theta = _newton(design, sign, strength, theta)
        weights.append(torch.einsum("ldr,lr->ld", reduced.basis, theta[:, :-1]) / reduced.scale[:, None])
        biases.append(theta[:, -1])
    order = [sorted(c).index(strength) for strength in c]
    return torch.stack(weights)[order].float(), torch.stack(biases)[order].float()


def _newton(design: Tensor, sign: Tensor, c: float, theta: Tensor, most: int = 200) -> Tensor:
    """Minimise 1/2 |w|^2 + c sum softplus(-sign (w.x + b)) for all layers at once, from `theta` [L, r + 1].

    design [L, n, r + 1], its last column one for the intercept; sign [n], +1 or -1. Stops when every layer's
    Newton decrement, a bound on the error that does not depend on the features' scale, is below 1e-14.
    """
    penalty = torch.ones(design.shape[2], dtype=design.dtype)
    penalty[-1] = 0.0
    for _ in range(most):
        logit = torch.einsum("lnr,lr->ln", design, theta)
        p = torch.sigmoid(-sign * logit)
        gradient = penalty * theta - c * torch.einsum("lnr,ln->lr", design, sign * p)
        hessian = design.mT @ ((c * p * (1 - p))[..., None] * design)
        # The 1e-12 keeps the intercept's row regular where every prompt is classified beyond doubt.
        hessian.diagonal(dim1=1, dim2=2).add_(penalty + 1e-12)
        step = torch.cholesky_solve(gradient[..., None], torch.linalg.cholesky(hessian))[..., 0]
        decrement = (gradient * step).sum(dim=1)
        if decrement.max() < 1e-14:
            return theta
        theta = theta - _damping(design, sign, c, theta, step, decrement)[:, None] * step
    raise UserError(
        f"probes.c: the probes with C = {c:g} did not converge in {most} Newton steps; leave it out or take a smaller"
    )


def _damping(design: Tensor, sign: Tensor, c: float, theta: Tensor, step: Tensor, decrement: Tensor) -> Tensor:
    """Share [L] of each layer's Newton step, halved until the objective falls as it should (Armijo)."""
    logit, move = (torch.einsum("lnr,lr->ln", design, vector) for vector in (theta, step))

    def objective(share: Tensor) -> Tensor:
        weight = theta[:, :-1] - share[:, None] * step[:, :-1]
        loss = softplus(-sign * (logit - share[:, None] * move)).sum(dim=1)
        return 0.5 * weight.square().sum(dim=1) + c * loss

    share = torch.ones_like(decrement)
    start = objective(torch.zeros_like(share))
    slack = 1e-12 * (1 + start)  # rounding of the objective: close to the minimum it hides the fall
    for _ in range(60):
        short = objective(share) > start - 1e-4 * share * decrement + slack
        if not short.any():
            break
        share = torch.where(short, share / 2, share)
    return share
