"""What a network shows a knowledge loss.

Shape letters: ``B`` batch, ``K`` classes, ``C`` channels, ``H, W`` space, ``N`` tokens, ``D`` features.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from naskd.spec.errors import InputError
from naskd.spec.sizes import Size, sides

Layout = Literal["map", "tokens"]


@dataclass(frozen=True)
class Tap:
    """One intermediate activation.

    Args:
        tensor: ``(B, C, H, W)`` for a map, ``(B, N, D)`` for tokens.
        layout: Which of the two.
        position: Relative depth of the tap in its network, in (0, 1].
        grid: ``(H, W)`` on which tokens lie row by row, ``H W = N``; None stands for a square, and for a map.
    """

    tensor: Tensor
    layout: Layout
    position: float
    grid: tuple[int, int] | None = None

    @property
    def shape(self) -> "TapShape":
        """The shape without the batch.

        Raises:
            InputError: Tokens do not fill their grid, or are no square and have none.
        """
        if self.layout == "map":
            _, channels, height, width = self.tensor.shape
            return TapShape(channels, (height, width), self.layout, self.position)
        _, tokens, channels = self.tensor.shape
        side = math.isqrt(tokens)
        grid = self.grid or (side, side)
        if math.prod(grid) != tokens:
            wanted = (
                "one of their number"
                if self.grid
                else "a square number, or their grid: Tap(..., grid=(H, W))"
            )
            raise InputError(f"{tokens} tokens do not lie on a grid of {grid[0]}x{grid[1]}; wanted: {wanted}")
        return TapShape(channels, grid, self.layout, self.position)


@dataclass(frozen=True)
class TapShape:
    """Shape of a tap without the batch: channels, spatial grid ``(H, W)``, layout, relative depth in (0, 1]."""

    channels: int
    grid: tuple[int, int]
    layout: Layout
    position: float


@dataclass(frozen=True)
class Taps:
    """All that a network shows for one batch.

    Args:
        logits: ``(B, K)``.
        stages: Output of each stage after its activation, shallow to deep.
        pre_activations: Output of each stage before its last activation (equal to `stages` where a block ends
            linearly), shallow to deep.
        pooled: ``(B, D)``, what the classifier sees.
        attention: Attention maps ``(B, heads, N, N)``, where the network has them.
    """

    logits: Tensor
    stages: tuple[Tap, ...]
    pre_activations: tuple[Tap, ...]
    pooled: Tensor
    attention: tuple[Tensor, ...] = ()

    @property
    def shapes(self) -> "TapShapes":
        """All shapes without the batch."""
        return TapShapes(
            n_classes=self.logits.shape[1],
            stages=tuple(tap.shape for tap in self.stages),
            pre_activations=tuple(tap.shape for tap in self.pre_activations),
            n_features=self.pooled.shape[1],
        )


@dataclass(frozen=True)
class TapShapes:
    """Shapes of :class:`Taps` without the batch; what a knowledge loss needs to build its adapters."""

    n_classes: int
    stages: tuple[TapShape, ...]
    pre_activations: tuple[TapShape, ...]
    n_features: int


def as_map(tap: Tap) -> Tensor:
    """``(B, C, H, W)`` of a tap; tokens ``(B, N, D)`` are laid out row by row on the tap's grid."""
    if tap.layout == "map":
        return tap.tensor
    batch, _, features = tap.tensor.shape
    return tap.tensor.transpose(1, 2).reshape(batch, features, *tap.shape.grid)


@runtime_checkable
class TappedNetwork(Protocol):
    """A classifier of images in [0, 1], ``(B, C, H, W)`` float; it normalises them itself.

    Normalisation belongs to the network, so that teacher and student each see what they were made for, and
    so that an exported student needs no preprocessing but a division by 255.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)``."""

    def taps(self, images: Tensor) -> Taps:
        """Logits and everything a knowledge loss may ask for, from one forward pass."""


def tap_shapes(network: nn.Module, in_channels: int, resolution: Size) -> TapShapes:
    """Shapes of a network's taps at a size of images, found with one evaluation pass of two zeros.

    The mode of each of the network's modules, and their statistics, are left as they were.

    Raises:
        InputError: The images are no squares, and tokens do not say their grid.
    """
    assert isinstance(network, TappedNetwork)
    height, width = sides(resolution)
    images = torch.zeros(2, in_channels, height, width, device=device_of(network))
    with evaluation_mode(network), torch.no_grad():
        taps = network.taps(images)
    if height != width and any(tap.layout == "tokens" and tap.grid is None for tap in taps.stages):
        raise InputError(
            f"on images of {width}x{height} pixels, tokens of a {type(network).__name__} lie on no square: their taps "
            "must say the grid, Tap(..., grid=(H, W))"
        )
    return taps.shapes


def device_of(network: nn.Module) -> torch.device:
    """Where a network lies: its parameters, or its buffers where it has none; the CPU without either."""
    first = next(chain(network.parameters(), network.buffers()), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Inside, `network` is in evaluation mode; afterwards each of its modules is in the mode that it had.

    Each on its own, since a scheme may train one part of a network while another stays in evaluation mode.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def taps_like(shapes: TapShapes, batch_size: int, device: str) -> Taps:
    """Zero taps of given shapes; on the ``meta`` device they cost nothing and let a loss be counted or checked."""

    def tap(shape: TapShape) -> Tap:
        height, width = shape.grid
        size = (shape.channels, height, width) if shape.layout == "map" else (height * width, shape.channels)
        grid = None if shape.layout == "map" else shape.grid
        return Tap(torch.zeros(batch_size, *size, device=device), shape.layout, shape.position, grid)

    return Taps(
        logits=torch.zeros(batch_size, shapes.n_classes, device=device),
        stages=tuple(tap(s) for s in shapes.stages),
        pre_activations=tuple(tap(s) for s in shapes.pre_activations),
        pooled=torch.zeros(batch_size, shapes.n_features, device=device),
    )
