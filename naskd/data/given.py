"""Images that were given in Python: arrays, tensors, or a ``torch.utils.data.Dataset``, read once and held."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from naskd.data.arrays import LabelledArrays, labelled_arrays
from naskd.data.raw import fit
from naskd.spec.errors import USERS, InputError, one_line
from naskd.spec.held import hold

_LOG = logging.getLogger(__name__)

HELD = "data"
"""What they are held as; see :mod:`naskd.spec.held`."""

_TWICE = 16
"""Samples of a data set, evenly spaced, that are read twice to see whether they stay the same.

Random mirrors leave all of them as they are once in 65,536 times.
"""


def hold_images(train: Any, test: Any = None, classes: Sequence[str] | None = None) -> dict[str, Any]:
    """Hold images, and say what a study's ``[data]`` is then.

    Args:
        train: A pair of images and labels, or a data set of ``(image, label)``. Images are ``(N, H, W)``,
            ``(N, C, H, W)`` or ``(N, H, W, C)``, ``C`` 1 or 3, uint8; or reals in [0, 1], which are rounded to 8 bits.
            An image of a data set is such an array without its ``N``, or one of Pillow.
        test: The same, of the sealed test images; None cuts them off from `train`.
        classes: Names of classes 0, 1, ... of both; default: each data set's own ``classes``, or the labels themselves.

    Raises:
        InputError: It is something else, or a data set changes what it gives.
    """
    own = getattr(train, "classes", None) if classes is None else classes
    # The numbers of a data set of fewer classes are others'.
    of_test = getattr(test, "classes", own) if classes is None and own is not None else own
    parts = [
        _arrays(given, names, name)
        for given, names, name in ((train, own, "train"), (test, of_test, "test"))
        if given is not None
    ]
    content = hashlib.sha256(repr(own and tuple(map(str, own))).encode())
    for part in parts:
        if part.names != parts[0].names:
            content.update(repr(part.names).encode())
        content.update(repr((part.images.shape, part.labels)).encode())
        content.update(np.ascontiguousarray(part.images).data)
    name = content.hexdigest()[:12]
    hold(HELD, name, tuple(parts))
    return {"kind": "python", "content": name, "own_test": test is not None}


def _arrays(given: Any, classes: Sequence[str] | None, name: str) -> LabelledArrays:
    place = f"data.{name}"
    if isinstance(given, tuple | list) and len(given) == 2:
        images, labels = _as_images(given[0], place), _as_array(given[1])
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, str | Mapping):
        images, labels = _read(given, place)
    else:
        raise InputError(
            f"{place} is of type {type(given).__name__}; allowed: a pair of images and labels, or a data set with a "
            "length whose items are pairs"
        )
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    return labelled_arrays(_as_bytes(images, place), labels, classes, place, ("images", "labels"))


def _read(dataset: Any, place: str) -> tuple[Any, Any]:
    """All samples, images with the channels last."""
    lost: dict[int, str] = {}

    def sample(position: int) -> tuple[Any, Any]:
        try:
            image, label = dataset[position]
        except USERS as error:
            raise InputError(
                f"{place}[{position}] is no pair of image and label: {one_line(error)}"
            ) from error
        lost[position] = _lost(image)
        array = _as_image(image, f"{place}[{position}]")
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
            array = array.transpose(1, 2, 0)
        return array, _as_array(label).item() if not isinstance(label, str) else label

    n = len(dataset)
    if not n:
        raise InputError(f"{place} is empty")
    for position in np.unique(np.linspace(0, n - 1, _TWICE).round().astype(int)).tolist():
        if not np.array_equal(sample(position)[0], sample(position)[0]):
            raise InputError(
                f"{place}[{position}] is another image each time: give the data set without random transforms; the "
                "search space says how images are augmented"
            )
    first, label = sample(0)
    images, labels = np.empty((n, *first.shape), first.dtype), [label]
    images[0] = first
    for position in range(1, n):
        image, label = sample(position)
        if image.shape != first.shape or image.dtype != first.dtype:
            raise InputError(
                f"{place}[{position}] is {image.dtype} {image.shape}, the first image {first.dtype} {first.shape}: "
                "give the data set a transform that resizes"
            )
        images[position] = image
        labels.append(label)
    _say_lost(lost.values(), place, n)
    return images, np.asarray(labels)


def _as_images(given: Any, place: str) -> Any:
    """Many images at once, which may be a list of Pillow's."""
    if isinstance(given, list | tuple) and any(isinstance(image, Image.Image) for image in given):
        _say_lost(map(_lost, given), place, len(given))
        arrays = [_as_image(image, f"{place}[{position}]") for position, image in enumerate(given)]
        if len(shapes := sorted({array.shape for array in arrays}, key=str)) > 1:
            raise InputError(
                f"{place}: images are of several shapes, {shapes[0]} and {shapes[1]}: resize them"
            )
        return np.stack(arrays)
    return _as_array(given)


def _lost(image: Any) -> str:
    """What of an image is not kept, in words; empty for nothing."""
    if not isinstance(image, Image.Image):
        return ""
    if image.mode.startswith("I;16"):
        return "have 16 bits a pixel: the upper 8 are kept"
    return "are transparent in part: that is dropped" if image.has_transparency_data else ""


def _say_lost(lost: Iterable[str], place: str, n: int) -> None:
    for what, count in Counter(filter(None, lost)).items():
        _LOG.warning("%d of %d images of %s %s", count, n, place, what)


def _as_image(given: Any, place: str) -> Any:
    """One image, of numpy. What Pillow's pixels mean depends on their mode: those of a palette are no colours."""
    if not isinstance(given, Image.Image) or given.mode == "F":  # reals, which have a range of their own
        return _as_array(given)
    try:
        pixels = fit(given, None, None)
    except (InputError, ValueError, OSError) as error:
        raise InputError(f"{place}: {one_line(error)}") from error
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def _as_array(given: Any) -> Any:
    """Of numpy."""
    return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)


def _as_bytes(images: Any, place: str) -> Any:
    """Images of 8 bits; reals that are no fractions of the largest value are refused."""
    if images.dtype.kind != "f":
        return images
    if not (np.isfinite(images).all() and images.min(initial=0) >= 0 and images.max(initial=0) <= 1):
        raise InputError(
            f"{place}: images are reals from {images.min():g} to {images.max():g}; allowed: from 0 to 1, or uint8. "
            "Leave out a normalisation: networks have their own"
        )
    return np.rint(images.astype(np.float64) * 255).astype(np.uint8)
