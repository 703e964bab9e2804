"""A 1x1 convolution with a stride reads some places of a map and skips the others: taken out first, it needs no stride.

The sums are the same. The other way is needed where oneDNN's kernel for the gradient of the weights writes beyond its
buffer: in channels_last at fewer channels than a vector holds, 8 with AVX2 and 16 with AVX-512 (oneDNN 3.13, torch
2.15). The heap is then corrupted, and the process dies at some later time, or lives on. What a trial of the kernel
would show depends on luck and on the size of the map, so every CPU takes the other way.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NARROW = 16
"""Channels from which on the kernel is right."""


class Subsampled(nn.Conv2d):
    """An ``nn.Conv2d`` that never runs the faulty kernel; of any sizes, with the same state and the same values."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (
            x.device.type != "cpu"
            or not torch.is_grad_enabled()
            or _is_plain(x, weight)
            or not is_faulty(self)
        ):
            kept: Tensor = super()._conv_forward(x, weight, bias)
            return kept
        height, width = self.stride
        return functional.conv2d(x[..., ::height, ::width], weight, bias)


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether both are NCHW beyond doubt: for torch, channels_last in one of them is enough."""
    return x.shape[1] > 1 and x.is_contiguous() and weight.stride(-1) == 1


def is_faulty(layer: nn.Module) -> bool:
    """Whether a layer is one that the kernel is wrong for."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.in_channels < NARROW
        and layer.groups == 1
        and max(layer.stride) > 1
        and set(layer.kernel_size) == {1}
        and layer.padding in ("valid", (0, 0))
    )


def avoid_faulty_kernels(network: nn.Module) -> None:
    """Have the convolutions of a network, whoever wrote it, take the other way where they need it; in place.

    A convolution that is called as a function, or by a ``forward`` of a class of its own, is not seen.
    """
    for layer in network.modules():
        if is_faulty(layer) and not isinstance(layer, Subsampled):
            kind: Any = type(layer)
            layer.__class__ = _subsampled(kind)


@functools.cache
def _subsampled(kind: Any) -> Any:
    """The class itself for torch's own layer, so that it can be pickled; for another one a class of both."""
    return Subsampled if kind is nn.Conv2d else type(kind.__name__, (Subsampled, kind), {})
