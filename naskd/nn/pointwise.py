"""1x1 convolutions, as matrix products where they are so small that calling a convolution is most of the work."""

import torch
from torch import Tensor
from torch.nn import functional

from naskd.nn.subsampled import Subsampled

SMALL = 400_000
"""Multiply-accumulates of a batch up to which a matrix product is faster on a CPU.

``benchmarks/operators.py`` measures it: 0.3 to 0.8 of a convolution's time up to here, and up to twice above (one
core, oneDNN 3.13, 2026-11-26).
"""


class PointwiseConv(Subsampled):
    """``(B, in, H, W)`` to ``(B, out, ceil(H/s), ceil(W/s))``.

    The same sums either way. Which way is taken depends on sizes alone, and in evaluation it is always the convolution,
    so that what is exported is one.

    Args:
        in_channels: At least 1.
        out_channels: At least 1.
        stride: Of both sides.
        bias: Whether there is one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=bias)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not (self.training and self._small(x) and x.is_contiguous(memory_format=torch.channels_last)):
            return super()._conv_forward(x, weight, bias)
        stride = self.stride[0]
        rows = x.permute(0, 2, 3, 1)[:, ::stride, ::stride]
        return functional.linear(rows, weight.flatten(1), bias).permute(0, 3, 1, 2)

    def _small(self, x: Tensor) -> bool:
        stride = self.stride[0]
        places = len(x) * -(-x.shape[2] // stride) * -(-x.shape[3] // stride)
        return x.device.type == "cpu" and places * self.weight.numel() <= SMALL
