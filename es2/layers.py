"""Which layers a training acts on: a config's own list, or a rule over the parent's probes (section 5). Torch-free."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from es2.errors import UserError
from es2.files import read_json

K = TypeVar("K")


@dataclass(frozen=True)
class LayerRule:
    """The `count` layers with the largest sum of validation d', in a `window` of relative depth, `gap` of it apart."""

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
            f"the {self.count} layers with the largest sum of validation d' at relative depth {low:g} to {high:g}, "
            f"at least {self.gap:g} of the depth apart"
        )

    def choose(self, val_d_prime: Sequence[float]) -> list[int]:
        """Layers, ascending, by the validation d' of all L of them; the relative depth of layer k is (k + 1) / L.

        The best set as a whole: the best layer taken first could leave the others poor ones. A NaN counts as the worst;
        of sets that are equal the first. UserError if so many layers do not fit.
        """
        depth = len(val_d_prime)
        apart = max(1, math.ceil(self.gap * depth - 1e-9))
        low, high = self.window
        layers = [k for k in range(depth) if low - 1e-9 <= (k + 1) / depth <= high + 1e-9]
        found = _best({k: float(val_d_prime[k]) for k in layers}, self.count, apart)
        if found is None:
            raise UserError(
                f"probes.layers or a run's separation.layers: {self.count} layers, {apart} apart, do not fit into "
                f"window {[low, high]} of {depth} layers; widen window or lower count or gap"
            )
        return found


def _best(scores: Mapping[int, float], count: int, apart: int) -> list[int] | None:
    """The `count` layers, `apart` from each other, with the fewest NaN and then the largest sum; None if none fit."""

    @cache
    def best(start: int, count: int) -> tuple[int, float, tuple[int, ...]] | None:
        """Number of NaN, negative sum and layers of the best choice among the layers from `start` on."""
        if count == 0:
            return 0, 0.0, ()
        choices = []
        for layer in (k for k in scores if k >= start):
            rest = best(layer + apart, count - 1)
            if rest is not None:
                nan = math.isnan(scores[layer])
                choices.append((rest[0] + nan, rest[1] - (0.0 if nan else scores[layer]), (layer, *rest[2])))
        return min(choices, default=None)

    found = best(0, count)
    return None if found is None else list(found[2])


def chosen_layers(given: Any, path: str | Path) -> list[int]:
    """Layers that `separation.layers` means: a list; by the parent's layers.json, `auto` or a run's own rule."""
    if isinstance(given, Mapping):
        return LayerRule.of(given).choose(read_json(path)["validation_d_prime"])
    chosen = read_json(path)["layers"] if given == "auto" else given
    return [int(layer) for layer in chosen]


def layers_of_runs(given: Mapping[K, Any], paths: Sequence[str | Path]) -> dict[K, list[int]]:
    """`chosen_layers` of several runs or trainings; each one's layers.json stands at its place in `paths`."""
    return {run: chosen_layers(layers, path) for (run, layers), path in zip(given.items(), paths, strict=True)}
