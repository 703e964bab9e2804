"""Gradients in the layout of the maps.

Every operation of a channels_last network that meets a gradient in NCHW copies it first, back to the first layer. A
layer takes about twice as long for it on a CPU (``benchmarks/operators.py``).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _SpatialMean(torch.autograd.Function):
    """Its gradient is the same number at every place of a map, and takes the memory of one; torch writes NCHW."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        mean: Tensor = x.mean((2, 3))
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = ctx.shape[2:]
        spread: Tensor = (gradient / (height * width))[:, :, None, None].expand(ctx.shape)
        return spread


def spatial_mean(x: Tensor) -> Tensor:
    """Mean over space, ``(B, C, H, W)`` to ``(B, C)``."""
    learns = torch.is_grad_enabled() and x.requires_grad
    mean: Tensor = _SpatialMean.apply(x) if learns else x.mean((2, 3))
    return mean


def keep_layout(x: Tensor) -> Tensor:
    """The same map; what all that read it hand back, summed, goes on in its own layout."""
    if x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
        x.register_hook(_channels_last)  # type: ignore[no-untyped-call]  # torch's is not annotated
    return x


def concatenated(parts: Sequence[Tensor]) -> Tensor:
    """Maps side by side, ``(B, C_i, H, W)`` to ``(B, sum C_i, H, W)``.

    Torch hands each a slice of the gradient, which is in no layout at all.
    """
    if not torch.is_grad_enabled():
        return torch.cat(tuple(parts), 1)
    # A view, so that whoever made the part meets its gradient after it was laid out.
    return torch.cat([keep_layout(part.view_as(part)) for part in parts], 1)


def _channels_last(gradient: Tensor) -> Tensor:
    constant = 0 in gradient.stride()  # of a mean: there is nothing to lay out
    return gradient if constant else gradient.contiguous(memory_format=torch.channels_last)
