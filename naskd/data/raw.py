"""What the readers of raw images share: a source that reads on demand, and one way to fit an image."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL import __version__ as pillow_version

from naskd.data.decoded_cache import MAPPED_BYTES, decoded_once
from naskd.data.splits import IndexArray
from naskd.spec.datasets import DataSpec
from naskd.spec.design import content_id
from naskd.spec.errors import InputError
from naskd.spec.image_folders import split_name
from naskd.spec.paths import absolute, files_of
from naskd.spec.sizes import Size, sides

ImageArray = NDArray[np.uint8]
Shape = tuple[int, int, int]
MIN_RESOLUTION = 8
_CHUNK = 256
MAX_ASPECT = 100
"""Of the sides of an image that is resized: the shorter side grows to the resolution, and the longer one with it."""


class ImageFiles(Protocol):
    """What a source knows of its images before they are read, where each is a file of its own."""

    @property
    def left_out(self) -> Mapping[str, Mapping[str, int]]:
        """How many entries of the folders are not read, by kind and name."""

    @property
    def warnings(self) -> Sequence[str]:
        """What of the folders may be meant and may not."""

    def name(self, position: int) -> str:
        """Of a file, for messages."""

    def below(self, position: int) -> str:
        """Path of a file below the folder that all of them are in: what its second modality is called too."""

    def notes(self, index: IndexArray) -> Mapping[str, int]:
        """How many of these images lose something when they are read, by what: a part of a sentence."""

    def settled(self, index: IndexArray, channels: int | None = None) -> "Source":
        """The same source, with all images of `index` in one shape: gray ones are converted among those of colour.

        Args:
            index: ``(n,)`` positions.
            channels: 1 or 3; None takes 3 where any of them has colour, unless the study says.

        Raises:
            UnreadableImagesError: None of them can be opened.
            InputError: They are of different sizes.
        """

    def sizes(self, index: IndexArray) -> Mapping[tuple[int, int], int]:
        """How many of these images have each size ``(height, width)`` in pixels, as their headers say."""

    def damaged(self, index: IndexArray) -> list[str]:
        """Decode these images, throw them away, and say of each that cannot be read why, a line each."""

    def digests(self, index: IndexArray) -> ImageArray:
        """As :func:`pixel_digests`, of images that are decoded and thrown away.

        Raises:
            UnreadableImagesError: Some cannot be read.
        """


class UnreadableImagesError(InputError):
    """Files that are no images, or are damaged: a line for each."""


class UnusableImagesError(InputError):
    """A source that cannot be opened, though its files can be looked at.

    Args:
        problems: All that is wrong with it, a line each.
        damaged: Which of its files cannot be read; see :meth:`ImageFiles.damaged`.
    """

    def __init__(self, problems: Iterable[str], damaged: Callable[[], list[str]]) -> None:
        super().__init__(problems)
        self.damaged = damaged


@dataclass(frozen=True, eq=False)
class Source:
    """Images that are still to be read. Nothing is decoded before :attr:`read` asks for it.

    Args:
        labels: ``(N,)`` class indices.
        class_names: In the order of the labels.
        shape_at: From a position to the shape ``(C, H, W)`` that its image has once it is fitted; reads no
            pixels.
        read: From positions ``(n,)``, at least one, to their images ``(n, C, H, W)``.
        files: What is known of the images where they are files; None where there is one file of all.
    """

    labels: IndexArray
    class_names: tuple[str, ...]
    shape_at: Callable[[int], Shape]
    read: Callable[[IndexArray], ImageArray]
    files: ImageFiles | None = None

    def __post_init__(self) -> None:
        n, labels = len(self.class_names), self.labels
        if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise TypeError("labels are an array (N,) of whole numbers")
        if labels.size and not 0 <= labels.min() <= labels.max() < n:
            raise ValueError(
                f"labels of {n} classes are from 0 to {n - 1}; there are {labels.min()} to {labels.max()}"
            )


class DataReader:
    """How one kind of data is opened. Two ways in: a search goes through the first alone.

    A reader is made without arguments, for one opening.
    """

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """The images that are split: into training, validation and, where there is no other test split, a sealed part.

        It must not open test images that lie apart.

        Args:
            spec: Which images; the options of the kind's card by ``spec.option(name)``.
            base: Folder that the paths in `spec` are relative to.
            cache: Folder for decoded images; None decodes at every call.

        Raises:
            InputError: The images are missing or cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} opens no images")

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """The test images that lie apart; see the card's ``own_test``. Arguments as for :meth:`development`.

        Raises:
            InputError: The images are missing or cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} has no test images apart")


def folder(base: Path, path: str | None) -> Path:
    """A path of the study file, relative to `base`."""
    assert path is not None
    return absolute(path, base)


def check_images(n_images: int, image_shape: Shape, spec: DataSpec, what: str) -> None:
    """Turn away images that no network of naskd can take, or that would not fit, before any is decoded.

    Args:
        n_images: How many are to be read.
        image_shape: ``(C, H, W)`` of one.
        spec: Whose `max_bytes` holds.
        what: Which images, for the messages.

    Raises:
        InputError: They are smaller than 8x8, or need more than ``max_bytes`` bytes as uint8.
    """
    _, height, width = image_shape
    if min(height, width) < MIN_RESOLUTION:
        raise InputError(
            f"the {what} images are {width}x{height} pixels; at least "
            f"{MIN_RESOLUTION}x{MIN_RESOLUTION} is needed: set data.resolution = {MIN_RESOLUTION} or more"
        )
    n_bytes = n_images * math.prod(image_shape)
    if n_bytes > spec.max_bytes:
        shape = "x".join(map(str, image_shape))
        raise InputError(
            f"{n_images} {what} images of {shape} need {n_bytes} bytes, data.max_bytes is "
            f"{spec.max_bytes}; set a smaller data.resolution or data.max_train, or a larger data.max_bytes"
        )


def fitted_shape(channels: int, height: int, width: int, spec: DataSpec) -> Shape:
    """``(C, H, W)`` of an image after :func:`fit`."""
    if spec.resolution is not None:
        height, width = sides(spec.resolution)
    return (spec.channels or channels, height, width)


def fit(image: Image.Image, resolution: Size | None, channels: int | None) -> ImageArray:
    """Resize until both sides reach `resolution`, crop the centre, convert the channels.

    Gray from colour is ITU-R 601 luma; colour from gray repeats it; transparency is dropped; palettes become
    colour; 16 bits a pixel keep the upper 8. Resizing is bilinear over the whole footprint of a pixel
    (antialiased).

    Args:
        image: Of any size and of an 8 or 16 bit mode.
        resolution: Side of a square in pixels, or ``(height, width)``; None keeps the size.
        channels: 1 or 3; None keeps what the image has.

    Returns:
        ``(C, H, W)``.

    Raises:
        InputError: Pixels of 32 bits, whose range is unknown; or a side is more than 100 times the other.
    """
    if resolution is not None and max(image.size) > MAX_ASPECT * min(image.size):
        # 334 bytes can hold 1 x 65,500 pixels, which at 224 are 10 GB before they are cropped.
        width, height = image.size
        raise InputError(f"{width}x{height} pixels; one side may be at most {MAX_ASPECT} times the other")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError(f"pixels of 32 bits (mode {image.mode}) have no known range; convert to 8 bits")
    image = image.convert("L" if (channels or channels_of(image)) == 1 else "RGB")
    if resolution is not None and image.size != (wanted := sides(resolution)[::-1]):
        scale = max(side / given for side, given in zip(wanted, image.size, strict=True))
        width, height = (
            max(side, round(given * scale)) for side, given in zip(wanted, image.size, strict=True)
        )
        left, top = (width - wanted[0]) // 2, (height - wanted[1]) // 2
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + wanted[0], top + wanted[1]))
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def channels_of(image: Image.Image) -> int:
    """1 for a gray image, 3 for any other."""
    return 1 if image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16") else 3


def pixel_digests(images: ImageArray) -> ImageArray:
    """SHA-256 of the pixels of each image, ``(N, 32)``: equal images of one shape have equal rows."""
    rows = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(images), 32)


def array_source(
    images: ImageArray,
    labels: IndexArray,
    class_names: tuple[str, ...],
    spec: DataSpec,
    cache: Path | None = None,
) -> Source:
    """A source over decoded images; each is fitted when it is read.

    Args:
        images: ``(N, H, W)`` or ``(N, H, W, 3)``; it may be mapped from a file.
        labels: ``(N,)`` class indices.
        class_names: In the order of the labels.
        spec: Its `resolution` and `channels` say how they are fitted.
        cache: Folder where fitted images rest that are too many for memory; None keeps all in memory.
    """
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        wanted = "wanted bytes (uint8) of (N, H, W) or (N, H, W, 3)"
        raise TypeError(f"images are {images.dtype} of {images.shape}; {wanted}")
    if len(images) != len(labels):
        raise ValueError(f"there are {len(images)} images and {len(labels)} labels")
    channels = 1 if images.ndim == 3 else 3
    image_shape = fitted_shape(channels, images.shape[1], images.shape[2], spec)
    as_it_is = image_shape == (channels, *images.shape[1:3])

    def fitted(chosen: ImageArray) -> ImageArray:
        if as_it_is:
            return chosen[:, None] if channels == 1 else chosen.transpose(0, 3, 1, 2)
        return np.stack([fit(Image.fromarray(pixels), spec.resolution, spec.channels) for pixels in chosen])

    def read(index: IndexArray) -> ImageArray:
        def fill(made: ImageArray) -> None:
            for start in range(0, len(index), _CHUNK):
                made[start : start + _CHUNK] = fitted(images[index[start : start + _CHUNK]])

        shape = (len(index), *image_shape)
        if cache is None or math.prod(shape) < MAPPED_BYTES:
            return decoded_once(None, "", shape, fill)
        how = ["array", pillow_version, list(image_shape), spec.resolution, _content(images)]
        key = content_id([*how, hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()])
        return decoded_once(cache, key, shape, fill)

    return Source(labels, class_names, lambda position: image_shape, read)


def _content(images: ImageArray) -> str:
    content = hashlib.sha256(repr(images.shape).encode())
    for start in range(0, len(images), _CHUNK):
        content.update(np.ascontiguousarray(images[start : start + _CHUNK]).data)
    return content.hexdigest()


def files_at(spec: DataSpec, base: Path, key: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that ``root`` or ``test_root`` means, sorted; see :func:`~naskd.spec.paths.files_of`.

    Raises:
        InputError: There are none, some are of training and of test images, or look so by their names.
    """
    files = files_of(getattr(spec, key), base, suffixes)
    if not files:
        raise InputError(f"data.{key} = {getattr(spec, key)!r} means no file {' or '.join(suffixes)}")
    other = spec.test_root if key == "root" else spec.root
    if other is not None and {path.resolve() for path in files} & {
        path.resolve() for path in files_of(other, base, suffixes)
    }:
        raise InputError(
            f"data.root = {spec.root!r} and data.test_root = {spec.test_root!r} share files, so that test images would "
            "be trained on; give patterns of different files"
        )
    named = {path: split for path in files if (split := split_name(path.stem))}
    for path, split in named.items():
        held_out = [p for p, s in named.items() if split.training and not s.training and s.rest == split.rest]
        if held_out:
            raise InputError(
                f"data.{key}: {path.name!r} and {held_out[0].name!r} look like different splits; give data.root and "
                "data.test_root a pattern each, such as train-*, or other names"
            )
    return files
