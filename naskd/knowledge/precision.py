"""Arithmetic of the losses: float32 at least, whatever the networks compute in, and gradients that stay small."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
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


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Mean of ``(a - b)^2``, a scalar; `b` is a target and gets no gradient.

    The gradient of ``F.mse_loss`` comes in NCHW whatever the layout of the maps; see :mod:`naskd.layout`.

    Args:
        a: Of any shape.
        b: Of the same shape and dtype.
    """
    found: Tensor = _MeanSquare.apply(a, b)
    return found


class _MeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return F.mse_loss(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        a, b = ctx.saved_tensors
        return (a - b) * (gradient * (2 / max(a.numel(), 1))), None


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
        with _without_autocast(a.device.type):
            return a @ b

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        with _without_autocast(a.device.type):
            return (
                gradient @ b.mT if ctx.needs_input_grad[0] else None,
                a.mT @ gradient if ctx.needs_input_grad[1] else None,
            )


def _without_autocast(device: str) -> AbstractContextManager[object]:
    # the meta device has no autocast, and does not even take it switched off
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
