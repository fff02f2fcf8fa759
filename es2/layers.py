"""Which layers a training acts on: a config's own list, or a rule over the parent's probes (section 5). Torch-free."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from es2.errors import UserError
from es2.files import read_json


@dataclass(frozen=True)
class LayerRule:
    """The `count` best layers by validation d' in a `window` of relative depth, at least `gap` of the depth apart."""

    count: int
    window: tuple[float, float]
    gap: float

    @classmethod
    def of(cls, cfg: Mapping[str, Any]) -> "LayerRule":
        """The rule from the config's mapping, whose keys are the fields' names."""
        low, high = cfg["window"]
        return cls(int(cfg["count"]), (float(low), float(high)), float(cfg["gap"]))

    def sentence(self) -> str:
        """The rule in words, for layers.json."""
        low, high = self.window
        return (
            f"the {self.count} layers with the best validation d' at relative depth {low:g} to {high:g}, "
            f"at least {self.gap:g} of the depth apart"
        )

    def choose(self, val_d_prime: Sequence[float]) -> list[int]:
        """Layers, ascending, by the validation d' of all L of them; the relative depth of layer k is (k + 1) / L.

        Taken greedily, best first, a layer being passed over where it would leave too little room for the rest; a NaN
        counts as the worst. UserError if so many do not fit.
        """
        scores = [-math.inf if math.isnan(score) else float(score) for score in val_d_prime]
        depth = len(scores)
        apart = max(1, math.ceil(self.gap * depth - 1e-9))
        low, high = self.window
        free = [k for k in range(depth) if low - 1e-9 <= (k + 1) / depth <= high + 1e-9]
        if _room(free, apart) < self.count:
            raise UserError(
                f"probes.layers or a run's separation.layers: {self.count} layers, {apart} apart, do not fit into "
                f"window {[low, high]} of {depth} layers; widen window or lower count or gap"
            )
        chosen: list[int] = []
        for layer in sorted(free, key=lambda k: (-scores[k], k)):
            rest = [k for k in free if abs(k - layer) >= apart]
            if layer in free and len(chosen) < self.count and _room(rest, apart) >= self.count - len(chosen) - 1:
                chosen.append(layer)
                free = rest
        return sorted(chosen)


def _room(layers: Sequence[int], apart: int) -> int:
    """How many of the ascending `layers` can be taken at least `apart` from each other."""
    taken, last = 0, -math.inf
    for layer in layers:
        if layer - last >= apart:
            taken, last = taken + 1, layer
    return taken


def chosen_layers(given: Any, path: str | Path) -> list[int]:
    """Layers that `separation.layers` means: a list; by the parent's layers.json, `auto` or a run's own rule."""
    if isinstance(given, Mapping):
        return LayerRule.of(given).choose(read_json(path)["validation_d_prime"])
    chosen = read_json(path)["layers"] if given == "auto" else given
    return [int(layer) for layer in chosen]


def layers_of_runs(given: Mapping[str, Any], paths: Sequence[str | Path]) -> dict[str, list[int]]:
    """`chosen_layers` of several runs; each run's layers.json stands at its place in `paths`."""
    return {run: chosen_layers(layers, path) for (run, layers), path in zip(given.items(), paths, strict=True)}
