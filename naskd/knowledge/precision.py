"""Arithmetic of the losses: float32 at least, whatever the networks compute in, and gradients that stay small."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_SHORTEST = 1e-12


def widened(tensor: Tensor) -> Tensor:
    """The tensor in float32 when it is narrower (bfloat16, float16), else as it is: float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def unit(x: Tensor, dim: int) -> Tensor:
    """``x / |x|`` along `dim`, and 0 with gradient 0 where ``|x|`` is below 1e-12.

    A zero vector has no direction that it could be turned from. The value is that of ``F.normalize``, whose gradient at
    a zero vector is 1e12 times what comes in: finite, and the end of a training, or of a balanced weight.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    turned: Tensor = x / length.clamp_min(_SHORTEST) * (length > _SHORTEST)
    return turned


def scaled(x: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """``x * factor`` in the shape and layout of `x`, worked out in the wider dtype of both and rounded to `dtype`.

    A gradient, so it is not differentiable. On a GPU a conversion of its own takes as long as the product.
    """
    if torch.promote_types(x.dtype, factor.dtype) is dtype:
        return x * factor
    return torch.mul(x, factor, out=torch.empty_like(x, dtype=dtype))


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Mean of ``(a - b)^2``, a scalar in the wider dtype of both; `b` is a target and gets no gradient.

    The gradient of ``F.mse_loss`` comes in NCHW whatever the layout of the maps; see :mod:`naskd.nn.layout`.

    Args:
        a: Of any shape.
        b: Of the same shape.
    """
    found: Tensor = _MeanSquare.apply(a, b)
    return found


class _MeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        apart = a - b
        ctx.save_for_backward(apart)
        ctx.dtype = a.dtype
        return apart.square().mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        apart: Tensor = ctx.saved_tensors[0]
        return scaled(apart, gradient * (2 / max(apart.numel(), 1)), ctx.dtype), None


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in the precision that both have, under autocast too, and its gradients likewise.

    Autocast turns matrix products to 16 bits, those of a backward pass that runs inside it among them.

    Args:
        a: ``(..., N, K)``.
        b: ``(..., K, M)``, of the same dtype and with the same leading dimensions.
    """
    found: Tensor = _Product.apply(a, b)
    return found


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with without_autocast(a.device.type):
            return a @ b

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        with without_autocast(a.device.type):
            return (
                gradient @ b.mT if ctx.needs_input_grad[0] else None,
                a.mT @ gradient if ctx.needs_input_grad[1] else None,
            )


def autocasts(device: str) -> bool:
    """Whether autocast is on for a type of device."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Inside, operations keep the precision of what they are given."""
    # the meta device has no autocast, and does not even take it switched off
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
