"""The test split: opened for the final training of chosen designs, and for nothing else.

Nothing that a search reaches may import this module (an import contract in ``pyproject.toml``): a test split
that has steered choices no longer measures what it claims to.
"""

from pathlib import Path

import numpy as np
import torch

from naskd.data.copies import new_images, read_apart
from naskd.data.images import ImageSet, SearchData, as_tensor
from naskd.data.modalities import check_second
from naskd.data.raw import ImageArray, Source, check_images, pixel_digests
from naskd.data.sources import (
    held_out_part,
    open_development,
    open_modality,
    settled,
    settled_test,
    split_of,
)
from naskd.data.splits import Split
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError


def load_test_split(
    spec: DataSpec, base: Path, cache: Path | None = None, data: SearchData | None = None
) -> ImageSet:
    """Read the test images as students see them: CIFAR-10's own, those of `test_root`, or the part that was cut off.

    Those that are also training or validation images are left out; see :mod:`naskd.data.copies`.

    Args:
        spec: As for :func:`naskd.data.load.load_search_data`.
        base: Folder that the paths in `spec` are relative to.
        cache: As for :func:`naskd.data.load.load_search_data`.
        data: What that gave, where it is at hand; else training and validation images are read to know them.

    Returns:
        Images of the shape and labels in the class order of the search's.

    Raises:
        InputError: Images are missing or corrupt, or the test images have other classes or another shape, or are all
            among the others.
    """
    return load_test_splits(spec, base, cache, data)[0]


def load_test_splits(
    spec: DataSpec, base: Path, cache: Path | None = None, data: SearchData | None = None
) -> tuple[ImageSet, ImageSet]:
    """The test images as students see them, and as teachers do; one set where both see the same.

    Arguments and errors as of :func:`load_test_split`.
    """
    development = open_development(spec, base, cache)
    split = split_of(development, spec)
    seen = np.concatenate([split.train, split.val])
    train = settled(development, seen)
    opened, index = held_out_part(spec, base, cache, development, split)
    source = settled_test(opened, index, train, int(split.train[0]))
    shape = source.shape_at(int(index[0]))
    check_images(len(index), shape, spec, "test")
    images = source.read(index)
    new = new_images(pixel_digests(images), _known(train, split, data))
    if not new.all():
        images, index = np.ascontiguousarray(images[new]), index[new]
    labels = torch.from_numpy(source.labels[index])
    first = ImageSet(as_tensor(images), labels)
    second = open_modality(spec, base, cache, development)
    if second is None:
        return first, first
    one = split.train[:1]
    trained_on = second.settled(seen).read(one, train.read(one)).shape[1:]
    held_out = open_modality(spec, base, cache, opened, test=spec.own_test)
    assert held_out is not None
    shown = held_out.settled(index, trained_on[0]).read(index, images)
    if shown.shape[1:] != trained_on:
        raise InputError(
            f"the test images of the second modality are {shown.shape[1:]}, the training images {trained_on} "
            "(C, H, W); set data.resolution"
        )
    check_second(trained_on, shape, len(index), spec, "test")
    return ImageSet(as_tensor(shown), labels), first


def _known(train: Source, split: Split, data: SearchData | None) -> ImageArray:
    """``(N, 32)`` digests of the training and validation images, in the first modality."""
    if data is None:
        return read_apart(train, split).digests
    parts = (data.for_teachers.train.images, data.for_teachers.val.images)
    return np.concatenate([pixel_digests(images.cpu().numpy()) for images in parts])
