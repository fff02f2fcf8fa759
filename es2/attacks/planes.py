"""Edits of the residual stream along one direction a layer: landing on a plane, or replaying recorded steps.

Every row (prompt) of a batch has its own direction set and its own targets, so that one batch can hold many settings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from es2.activations import edit_residual
from es2.models import LanguageModel


@dataclass
class PlaneAttack:
    """SCAV's edit: e' = e + 1[u.e > c] (c - u.e) u, at the last prompt token and at every generated one.

    direction [m, L, d]: unit vectors u towards "harmful", m sets of them (one a probe strength C);
    which [n]: the row's set; target [n, L]: the row's plane c = u.e' at each layer, +inf where it does not edit.
    With `steps` [n, L, T] the norms of the edits are recorded there, NaN where a row had already ended.
    """

    direction: Tensor
    which: Tensor
    target: Tensor
    steps: Tensor | None = None
    layers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.layers = torch.nonzero(torch.isfinite(self.target).any(dim=0)).squeeze(1).tolist()

    def edit(self, layer: int, states: Tensor, rows: Tensor, step: int) -> Tensor:
        """Edited states [b, d]; see es2.activations.Edit."""
        direction = self.direction[self.which[rows], layer].to(states.device, states.dtype)
        target = self.target[rows, layer].to(states.device, states.dtype)
        move = torch.clamp((states * direction).sum(dim=-1) - target, min=0.0)
        if self.steps is not None and step < self.steps.shape[2]:
            self.steps[rows, layer, step] = move.float().cpu()
        return states - move[:, None] * direction

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[None]:
        """Attack the model within the block."""
        with edit_residual(lm, self.layers, self.edit):
            yield


@dataclass
class ReplayAttack:
    """Control: an attack's recorded step norms, row by row, layer by layer, token by token, along other directions.

    steps [n, L, T] >= 0; direction [m, L, d] unit vectors; which [n] the row's set. Past a row's recorded tokens its
    mean step at that layer is used.
    """

    steps: Tensor
    direction: Tensor
    which: Tensor

    def __post_init__(self) -> None:
        mean = torch.nanmean(self.steps, dim=2, keepdim=True).nan_to_num(0.0)
        self.steps = torch.where(self.steps.isnan(), mean, self.steps)
        self.layers = torch.nonzero(self.steps.sum(dim=(0, 2)) > 0).squeeze(1).tolist()

    def edit(self, layer: int, states: Tensor, rows: Tensor, step: int) -> Tensor:
        """Edited states [b, d]; see es2.activations.Edit."""
        norm = self.steps[rows, layer, min(step, self.steps.shape[2] - 1)].to(states.device, states.dtype)
        direction = self.direction[self.which[rows], layer].to(states.device, states.dtype)
        return states + norm[:, None] * direction

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[None]:
        """Push the model within the block."""
        with edit_residual(lm, self.layers, self.edit):
            yield


def random_directions(draws: int, n_layers: int, width: int, seed: int) -> Tensor:
    """Unit vectors [draws, L, d], uniform on the sphere."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(draws, n_layers, width, generator=generator)
    return vectors / vectors.norm(dim=-1, keepdim=True)


def relative_budget(embeddings: Tensor, direction: Tensor, target: Tensor) -> Tensor:
    """Budget [n] of landing on `target` [n, L]: RMS over edited layers of |step| / |e| on the unedited embeddings.

    embeddings [n, L, d], direction [n, L, d] (or broadcast to it); layers with target +inf are not edited and do not
    count (method.md section 6). A row without an edited layer has budget 0.
    """
    norm = embeddings.norm(dim=-1)
    step = torch.clamp((embeddings * direction).sum(dim=-1) - target, min=0.0) / norm
    edited = torch.isfinite(target)
    total = torch.where(edited, step, torch.zeros_like(step)).square().sum(dim=1)
    return (total / edited.sum(dim=1).clamp(min=1)).sqrt()
