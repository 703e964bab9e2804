"""The second modality of images: what students see of a sample of which teachers see the first.

Cross-modal distillation: Gupta, Hoffman, Malik: Cross modal distillation for supervision transfer. CVPR 2016, arXiv
1507.00448: a network for depth learns what a network for colour says of the same scene, without labels.

It is made once, before images are cropped, moved or mirrored, so that the same view is taken of both. What a gradient
shows at the border of an image is that of the whole image, and moves with it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.data.images import smaller_by_a_factor
from naskd.data.raw import ImageArray, Shape, Source, check_images
from naskd.data.splits import IndexArray
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import USERS, InputError, NaskdError, one_line
from naskd.spec.modalities import MODALITIES, ModalitySpec

_CHUNK = 4096

SOBEL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
"""Across columns; its transpose is across rows."""


def gray(images: Tensor) -> Tensor:
    """Luminance, ``(N, 1, H, W)``: ITU-R 601 luma, as Pillow rounds it, so that it is what ``channels = 1`` reads.

    Args:
        images: ``(N, 3, H, W)`` uint8.

    Raises:
        InputError: They have no colours.
    """
    if images.shape[1] != 3:
        raise InputError(
            f"the images have {images.shape[1]} channel, so that students would see what teachers see; "
            "'gray' is of images of 3 channels"
        )
    return _luminance(images).to(torch.uint8)


def edges(images: Tensor) -> Tensor:
    """Length of the gradient of the luminance by Sobel's operator, in grey levels, at most 255: ``(N, 1, H, W)``.

    Each component is the operator's sum over 4: a step of 100 levels has 100 on both of its sides. Beyond the border an
    image goes on as it ends.

    Args:
        images: ``(N, C, H, W)`` uint8, C of 1 or 3.
    """
    around = F.pad(_luminance(images).double(), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor(SOBEL, dtype=torch.float64)
    kernels = torch.stack([across, across.T])[:, None]
    # Whole numbers below 2**53: exact in any order.
    length = F.conv2d(around, kernels).square().sum(dim=1, keepdim=True).sqrt() / 4
    return length.round().clamp(max=255).to(torch.uint8)


def low_resolution(images: Tensor, factor: int) -> Tensor:
    """Means of squares of ``factor`` by ``factor`` pixels, rounded half up: ``(N, C, H / factor, W / factor)``.

    Args:
        images: ``(N, C, H, W)`` uint8.
        factor: At least 2, a divisor of H and W.

    Raises:
        InputError: It divides no side.
    """
    n, channels, height, width = images.shape
    if height % factor or width % factor:
        raise InputError(f"factor = {factor} does not divide the side of images of {width}x{height} pixels")
    squares = images.view(n, channels, height // factor, factor, width // factor, factor)
    total, area = squares.sum(dim=(3, 5), dtype=torch.int64), factor * factor
    return ((2 * total + area) // (2 * area)).to(torch.uint8)


def _luminance(images: Tensor) -> Tensor:
    """``(N, 1, H, W)`` int64 in [0, 255]; of one channel, that."""
    if images.shape[1] == 1:
        return images.long()
    if images.shape[1] != 3:
        raise InputError(f"luminance is of images of 1 or 3 channels, got {images.shape[1]}")
    colours = images.long()
    red, green, blue = colours[:, :1], colours[:, 1:2], colours[:, 2:]
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


class SecondModality(Protocol):
    """The second modality of the images of one source."""

    def settled(self, index: IndexArray, channels: int | None = None) -> "SecondModality":
        """The same with all images of positions `index` in one shape; see :meth:`~naskd.data.raw.ImageFiles.settled`.

        Raises:
            InputError: They are of different sizes.
        """

    def read(self, index: IndexArray, first: ImageArray) -> ImageArray:
        """Images ``(n, C2, H2, W2)`` at positions ``(n,)``, of which the first modality is ``(n, C, H, W)``.

        Raises:
            InputError: They cannot be made or read.
        """


@dataclass(frozen=True, eq=False)
class MadeModality:
    """A function of the first modality."""

    spec: ModalitySpec

    def settled(self, index: IndexArray, channels: int | None = None) -> "MadeModality":
        """Nothing is to be settled."""
        return self

    def read(self, index: IndexArray, first: ImageArray) -> ImageArray:
        """See :class:`SecondModality`; in parts, so that whole numbers of 64 bits are few."""
        parts = [self._made(first[start : start + _CHUNK]) for start in range(0, len(first), _CHUNK)]
        if len(shapes := {part.shape[1:] for part in parts}) > 1:
            raise InputError(
                f"modality {self.spec.name!r} gives images of several shapes (C, H, W): {sorted(shapes)}"
            )
        return np.concatenate(parts)

    def _made(self, first: ImageArray) -> ImageArray:
        name = self.spec.name
        try:
            # What it is given is its own, so that a function that writes to it changes no image.
            made = MODALITIES.load(name)(torch.tensor(first), **self.spec.settings())
        except NaskdError as error:
            raise InputError(f"modality {name!r}: {error}") from error
        except USERS as error:  # a user's function may raise anything
            raise InputError(f"modality {name!r} cannot be made: {one_line(error)}") from error
        if (
            not isinstance(made, Tensor)
            or made.dtype != torch.uint8
            or made.ndim != 4
            or len(made) != len(first)
        ):
            got = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
            raise InputError(f"modality {name!r} gives {got}; wanted: uint8 ({len(first)}, C, H, W)")
        return made.contiguous().numpy()


@dataclass(frozen=True, eq=False)
class PairedModality:
    """Images of their own, at the same positions as those of the first modality."""

    source: Source

    def settled(self, index: IndexArray, channels: int | None = None) -> "PairedModality":
        """See :class:`SecondModality`."""
        files = self.source.files
        return self if files is None else PairedModality(files.settled(index, channels))

    def read(self, index: IndexArray, first: ImageArray) -> ImageArray:
        """See :class:`SecondModality`."""
        return self.source.read(index)


def check_second(second: Shape, first: Shape, n_images: int, spec: DataSpec, what: str) -> None:
    """Turn away images that cannot stand beside those of the first modality.

    Args:
        second: ``(C, H, W)`` of what students see.
        first: Of what teachers see.
        n_images: How many there are of each.
        spec: Whose `max_bytes` holds, for both modalities together.
        what: Which images, for the messages.

    Raises:
        InputError: See :func:`~naskd.data.raw.check_images`; or the first one's side is no multiple of theirs.
    """
    what = f"{what} (second modality)"
    check_images(n_images, second, spec, what)
    if not smaller_by_a_factor(second[1:], first[1:]):
        raise InputError(
            f"the {what} images are {second[2]}x{second[1]} pixels, the first modality's {first[2]}x{first[1]}; "
            "allowed: as large, or smaller by a whole factor; set data.resolution"
        )
    n_bytes = n_images * (int(np.prod(first)) + int(np.prod(second)))
    if n_bytes > spec.max_bytes:
        raise InputError(
            f"{n_images} {what} images need {n_bytes} bytes together with the first modality, data.max_bytes is "
            f"{spec.max_bytes}; set a smaller data.resolution or data.max_train, or a larger data.max_bytes"
        )
