"""Where a SCAV edit lands: the attacker's settings, the planes they mean, and the strength that spends a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from es2.attacks.planes import relative_budget
from es2.probes import ProbeSet


@dataclass(frozen=True)
class Setting:
    """An attacker's choice: landing rule, probe strength C, accuracy threshold, and window of relative depth.

    rule "probability" lands where the probe gives P0; rule "projection" lands at (1 - t) mu_H + t mu_S along the probe.
    """

    rule: str
    c: float
    accuracy: float
    window: tuple[float, float]

    @property
    def name(self) -> str:
        """Short name for tables."""
        low, high = self.window
        return f"{self.rule} C={self.c:g} acc>{self.accuracy:g} depth {low:g}-{high:g}"

    def layers(self, probes: ProbeSet) -> list[int]:
        """Layers in the window whose validation accuracy exceeds the threshold; may be none."""
        accuracy = probes.accuracy[probes.index(self.c)]
        return [layer for layer in in_window(self.window, len(accuracy)) if accuracy[layer] > self.accuracy]


def in_window(window: Sequence[float], n_layers: int) -> list[int]:
    """The layers whose relative depth, 0 for the first and 1 for the last, lies in the window."""
    low, high = window
    return [layer for layer in range(n_layers) if low <= layer / max(1, n_layers - 1) <= high]


def directions(probes: ProbeSet) -> Tensor:
    """The probes' unit vectors [nC, L, d], towards "harmful"."""
    return probes.weight / probes.weight.norm(dim=-1, keepdim=True)


def planes(setting: Setting, probes: ProbeSet, strength: Tensor) -> Tensor:
    """Targets [n, L] along the unit direction for `strength` [n]: -logit P0, or t; +inf where no layer is edited."""
    at = probes.index(setting.c)
    norm = probes.weight[at].norm(dim=-1)
    if setting.rule == "probability":
        target = (-strength[:, None] - probes.bias[at]) / norm
    else:
        harmful, safe = probes.mu_harmful[at], probes.mu_safe[at]
        target = (harmful + strength[:, None] * (safe - harmful)) / norm
    chosen = torch.zeros(target.shape[1], dtype=torch.bool)
    chosen[setting.layers(probes)] = True
    return torch.where(chosen, target, torch.full_like(target, torch.inf))


def spend(setting: Setting, probes: ProbeSet, embeddings: Tensor, budget: float) -> Tensor:
    """Targets [n, L] whose relative budget on the unedited `embeddings` [n, L, d] is exactly `budget`, row by row.

    Without a budget or a layer nothing is edited, at generated tokens either: every target is +inf.
    """
    direction = directions(probes)[probes.index(setting.c)]

    def spent(strength: Tensor) -> Tensor:
        return relative_budget(embeddings, direction, planes(setting, probes, strength))

    if budget <= 0 or not setting.layers(probes):
        return torch.full(embeddings.shape[:2], torch.inf)
    return planes(setting, probes, _solve(spent, len(embeddings), budget))


def _solve(spent: Callable[[Tensor], Tensor], n: int, budget: float) -> Tensor:
    """Strength [n] at which the non-decreasing `spent` reaches `budget`: doubling to bracket it, then bisection."""
    low, high = torch.full((n,), -1.0), torch.full((n,), 1.0)
    for _ in range(40):
        low = torch.where(spent(low) > budget, 2 * low, low)
        high = torch.where(spent(high) < budget, 2 * high, high)
    for _ in range(50):
        middle = (low + high) / 2
        over = spent(middle) > budget
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return (low + high) / 2


def all_settings(
    rules: Sequence[str], c: Sequence[float], accuracy: Sequence[float], windows: Sequence[Sequence[float]]
) -> list[Setting]:
    """Every combination, in a fixed order."""
    return [
        Setting(rule, strength, threshold, (float(window[0]), float(window[1])))
        for rule in rules
        for strength in c
        for threshold in accuracy
        for window in windows
    ]
