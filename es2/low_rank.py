"""LoRA's product in one with the linear layer that it adapts: y = x W' + b + s (x A') B', and its gradients.

peft forms the two products apart, then scales and adds them: passes over [tokens, width] of their own, forward and
backward, in every linear layer. Here each product is added where the matrix product before it is written. The result is
the same up to rounding.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

ADAPTER = "default"


class _Adapted(torch.autograd.Function):
    """x [..., i], frozen weight [o, i] and bias [o] or None, down A [r, i], up B [o, r]: the output [..., o]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, s: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        inner, scaled = rows @ down.T, up * s
        out = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        out.addmm_(inner, scaled.T)
        ctx.save_for_backward(rows, inner, weight, down, scaled)
        ctx.shape, ctx.scale = x.shape, s
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, weight, down, scaled = ctx.saved_tensors
        of_out = gradients[0].reshape(-1, weight.shape[0])
        of_inner = of_out @ scaled
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (of_out @ weight).addmm_(of_inner, down).view(ctx.shape)
        return of_x, None, None, of_inner.T @ rows, (of_out.T @ inner).mul_(ctx.scale), None


def fuse(model: nn.Module) -> None:
    """Let every linear layer that peft adapts form its output in one, wherever peft's own way would mean the same."""
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if isinstance(layer, Linear) and ADAPTER in layer.lora_A:
            # Bound, so that a copy of the model computes with its own weights.
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: Any, x: Tensor, *more: Any, **named: Any) -> Tensor:
    """The layer's output; peft's own where the adapter is off, folded in, dropped out or of another type."""
    base, down, up = layer.base_layer, layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
    plain = isinstance(layer.lora_dropout[ADAPTER], nn.Identity) and ADAPTER not in layer.lora_variant
    plain = plain and type(base) is nn.Linear and up.bias is None and not base.weight.requires_grad
    same = x.dtype == base.weight.dtype == down.weight.dtype and not torch.is_autocast_enabled(x.device.type)
    on = not layer.disable_adapters and not layer.merged and layer.active_adapters == [ADAPTER]
    if not (plain and same and on) or more or named:
        out: Tensor = type(layer).forward(layer, x, *more, **named)
        return out
    return _Adapted.apply(x, base.weight, base.bias, down.weight, up.weight, layer.scaling[ADAPTER])
