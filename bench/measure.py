"""One row of the bench: equal results first, then timings of both sides in turn."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

COLUMNS = (
    "path", "anchor", "device", "model", "ratio", "ratio_low", "ratio_high", "ours_s", "anchor_s", "fraction_of_limit",
)  # fmt: skip


class UnequalError(Exception):
    """The two sides of a row do not give the same result, so that their times cannot be compared."""


@dataclass(frozen=True)
class Machine:
    """What a row is measured on: device, and the size n of the n x n product that gives its rate in `dtype`."""

    device: torch.device
    dtype: torch.dtype
    product: int

    def seconds(self, call: Callable[[], Any]) -> float:
        """Wall time of a call, waiting for the device."""
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def flop_per_second(self) -> float:
        """Rate of a square matrix product, the best of three: what no path that is made of them can pass."""
        left, right = (torch.randn(self.product, self.product, device=self.device, dtype=self.dtype) for _ in "ab")
        return 2 * self.product**3 / min(self.seconds(lambda: left @ right) for _ in range(3))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Comparison:
    """Our path and its anchor, each a call that returns its result, and the check that the results are equal.

    `check(ours, anchor)` raises UnequalError. `flop`: floating-point operations that the path cannot do without, where
    they are its limit. With `cost` the ratio is our time over the anchor's, else the anchor's over ours.
    """

    path: str
    anchor: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    check: Callable[[Any, Any], None]
    repetitions: int
    flop: float | None = None
    cost: bool = False


def measured(comparison: Comparison, machine: Machine, model: str) -> dict[str, Any]:
    """A row of bench.csv: medians over repetitions, and the smallest and largest ratio of one repetition.

    The first run of each side warms up and is checked; then the sides take turns, so that what else the machine does
    meets both. The rate of the limit is measured in every turn too. Raises UnequalError, naming the row.
    """
    try:
        comparison.check(comparison.ours(), comparison.theirs())
    except UnequalError as error:
        raise UnequalError(f"{comparison.path}/{comparison.anchor}: the results differ: {error}") from None
    ours, theirs, limits = [], [], []
    for _ in range(comparison.repetitions):
        ours.append(machine.seconds(comparison.ours))
        theirs.append(machine.seconds(comparison.theirs))
        if comparison.flop is not None:
            limits.append(comparison.flop / machine.flop_per_second() / ours[-1])
    pairs = zip(ours, theirs, strict=True)
    ratios = [mine / other if comparison.cost else other / mine for mine, other in pairs]
    row = (
        comparison.path,
        comparison.anchor,
        machine.device.type,
        model,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(ours),
        statistics.median(theirs),
        statistics.median(limits) if limits else None,
    )
    return dict(zip(COLUMNS, row, strict=True))


def expect_close(name: str, found: Tensor, expected: Tensor, bound: float) -> None:
    """UnequalError unless `found` is within `bound` of `expected`, entry by entry, at the same shape."""
    if found.shape != expected.shape:
        raise UnequalError(f"{name} has shape {tuple(found.shape)}, the anchor's {tuple(expected.shape)}")
    worst = (found - expected).abs().max().item()
    if not worst <= bound:  # not a number differs too
        raise UnequalError(f"{name} differs by {worst:.3g}, bound {bound:g}")


def expect_close_vectors(name: str, found: Tensor, expected: Tensor, bound: float) -> None:
    """UnequalError unless each vector [..., d] is within `bound` of the expected one's norm."""
    if found.shape != expected.shape:
        raise UnequalError(f"{name} has shape {tuple(found.shape)}, the anchor's {tuple(expected.shape)}")
    relative = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    expect_close(f"{name} (over its norm)", relative, torch.zeros_like(relative), bound)
