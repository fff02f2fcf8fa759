"""Reading and editing the residual stream with hooks that are always removed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from es2.models import LanguageModel

Edit = Callable[[int, Tensor, Tensor, int], Tensor]
"""edit(layer, states [b, d], rows [b], step) -> edited states [b, d]."""


@dataclass(frozen=True)
class Places:
    """Places in a forward pass's residual stream (`here`: rows [m] and columns [m]), and the index of the prompt that
    each belongs to in the caller's list (`rows` [m])."""

    here: tuple[Tensor, Tensor]
    rows: Tensor


def block_output(output: Any) -> Tensor:
    """The residual stream [b, t, d] in what a block returns (a tensor, or a tuple that begins with it)."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def record_residual(lm: LanguageModel, layers: Sequence[int], whole: bool = False) -> Iterator[dict[int, Tensor]]:
    """Collect the residual stream of `layers` at the cursor's positions: {layer: [b, d]}, gradients kept.

    With `whole` it is that of all positions of the forward passes with a cursor: {layer: [b, t, d]}.
    """
    recorded: dict[int, Tensor] = {}

    def hook_for(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            if lm.cursor is not None:
                states = block_output(output)
                rows = torch.arange(len(states), device=states.device)
                recorded[layer] = states if whole else states[rows, lm.cursor.positions]

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(lm.blocks[layer].register_forward_hook(hook_for(layer)).remove)
        yield recorded


@contextmanager
def last_mlp_at_cursor(lm: LanguageModel) -> Iterator[None]:
    """Run the last block's MLP at the cursor's positions alone: where a forward pass is read nowhere else.

    It saves most of that block, a thirtieth of a pass of 30. Its output is taken to be zero elsewhere, so that the
    residual stream after the block is right at the cursor's positions alone.
    """
    shapes: list[torch.Size] = []

    def here(rows: int) -> tuple[Tensor, Tensor]:
        assert lm.cursor is not None
        return torch.arange(rows, device=lm.device), lm.cursor.positions

    def narrow(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        shapes.append(inputs[0].shape)
        return (inputs[0][here(len(inputs[0]))][None], *inputs[1:])

    def widen(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        shape = shapes.pop()
        wide = output.new_zeros(shape)
        wide[here(shape[0])] = output[0]
        return wide

    mlp = getattr(lm.blocks[-1], "mlp", None)
    with ExitStack() as stack:
        if isinstance(mlp, torch.nn.Module):
            stack.callback(mlp.register_forward_pre_hook(narrow).remove)
            stack.callback(mlp.register_forward_hook(widen).remove)
        yield


@contextmanager
def edit_residual(lm: LanguageModel, layers: Sequence[int], edit: Edit, places: Places | None = None) -> Iterator[None]:
    """Replace the residual stream of `layers` at the cursor's positions, or at `places`, by `edit`'s result.

    A forward pass without a cursor (the shared head of a template, what comes before the last token of a prompt that is
    asked several times) is left as it is.
    """

    def hook_for(layer: int) -> Callable[..., Any]:
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            if lm.cursor is None:
                return None
            states = block_output(output)
            every = torch.arange(len(states), device=states.device)
            at = places or Places((every, lm.cursor.positions), lm.cursor.rows)
            edited = states.clone()
            edited[at.here] = edit(layer, states[at.here], at.rows, lm.cursor.step)
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(lm.blocks[layer].register_forward_hook(hook_for(layer)).remove)
        yield
