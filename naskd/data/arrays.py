"""Arrays of images with a label each, as they stand in files or were given in Python: what is wrong with them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from naskd.data.classes import check_labelled, class_names_of, labels_of
from naskd.data.raw import ImageArray, Source, array_source
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError

NAMES = "class_names"
"""An array of the names of classes 0, 1, ..., where there is one."""


class LabelledArrays(NamedTuple):
    """Images, and their labels.

    Args:
        place: Where they are from, for messages.
        images: ``(N, H, W)`` or ``(N, H, W, 3)``.
        labels: A whole number or a name each.
        names: Of classes 0, 1, ...; None where labels are all that is known.
    """

    place: str
    images: ImageArray
    labels: list[object]
    names: tuple[str, ...] | None

    def class_names(self) -> tuple[str, ...]:
        """Of all classes, in the order of their numbers."""
        return self.names or class_names_of(self.labels, self.place)

    def source(self, names: tuple[str, ...], spec: DataSpec, cache: Path | None) -> Source:
        """A source of them, whose classes are called `names`."""
        labels = self.labels
        if self.names is not None and all(isinstance(label, int) for label in labels):
            known = self.names
            wrong = [i for i, label in enumerate(labels) if not 0 <= int(str(label)) < len(known)]
            if wrong:
                raise InputError(
                    f"{self.place}: {len(wrong)} labels are no number of the {len(known)} names in {NAMES!r}, "
                    f"such as {labels[wrong[0]]} at position {wrong[0]}"
                )
            labels = [known[int(str(label))] for label in labels]
        numbers = labels_of(labels, names, self.place, _position)
        return array_source(self.images, numbers, names, spec, cache)


def _position(position: int) -> str:
    return f"position {position}"


def labelled_arrays(
    images: Any, labels: Any, names: Iterable[object] | None, place: str, called: tuple[str, str]
) -> LabelledArrays:
    """Arrays that are images and labels.

    Args:
        images: ``(N, H, W)`` or ``(N, H, W, 1 or 3)``, uint8.
        labels: ``(N,)``, whole numbers or strings.
        names: Of classes 0, 1, ..., where they are known.
        place: Where they are from, for messages.
        called: What images and labels are called there.

    Raises:
        InputError: They are something else.
    """
    images_name, labels_name = called
    images = _checked(images, images_name, place)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(images),):
        raise InputError(
            f"{place}: {labels_name!r} is {labels.shape}, {images_name!r} has {len(images)} images; "
            f"it must be ({len(images)},)"
        )
    if labels.dtype.kind not in "iuUS":
        whole = labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.rint(labels)).all()
        if not whole:
            raise InputError(
                f"{place}: {labels_name!r} is {labels.dtype}; it must be whole numbers or strings"
            )
        labels = labels.astype(np.int64)
    values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in labels.tolist()]
    check_labelled(values, place, _position)
    return LabelledArrays(place, images, values, None if names is None else tuple(map(str, names)))


def _checked(images: Any, name: str, place: str) -> ImageArray:
    shape = images.shape
    if len(shape) == 4 and shape[3] == 1:
        images = images[..., 0]
    if (
        images.dtype != np.uint8
        or not (images.ndim == 3 or (images.ndim == 4 and shape[3] == 3))
        or not len(images)
    ):
        hint = ""
        if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
            hint = "; channels come last: images.transpose(0, 2, 3, 1)"
        elif images.dtype.kind == "f":
            hint = "; of images in [0, 1]: (images * 255).round().astype('uint8')"
        raise InputError(
            f"{place}: {name!r} is {images.dtype} {shape}; it must be uint8 (N, H, W) or (N, H, W, 1 or 3){hint}"
        )
    found: ImageArray = images
    return found
