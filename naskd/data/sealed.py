"""The test split: opened for the final training of chosen designs, and for nothing else.

Nothing that a search reaches may import this module (an import contract in ``pyproject.toml``): a test split
that has steered choices no longer measures what it claims to.
"""

from pathlib import Path

import numpy as np
import torch

from naskd.data.images import ImageSet
from naskd.data.raw import check_images
from naskd.data.sources import open_development, open_test, split_of
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError


def load_test_split(spec: DataSpec, base: Path, cache: Path | None = None) -> ImageSet:
    """Read the test images: CIFAR-10's own, those of `test_root`, or the part that was cut off.

    Args:
        spec: As for :func:`naskd.data.load.load_search_data`.
        base: Folder that the paths in `spec` are relative to.
        cache: As for :func:`naskd.data.load.load_search_data`.

    Returns:
        Images of the shape and labels in the class order of the search's.

    Raises:
        InputError: Images are missing or corrupt, or the test images have other classes or another shape.
    """
    development = open_development(spec, base, cache)
    split = split_of(development, spec)
    source, index = development, split.test
    if spec.own_test:
        source = open_test(spec, base, cache)
        index = np.arange(len(source.labels), dtype=np.int64)
        if source.class_names != development.class_names:
            different = sorted(set(source.class_names) ^ set(development.class_names))
            raise InputError(
                f"the test images and the training images have different classes: {', '.join(different)} "
                "in one of them only; give both the same class folders"
            )
    shape, train_shape = source.shape_at(int(index[0])), development.shape_at(int(split.train[0]))
    if shape != train_shape:
        raise InputError(
            f"the test images are {shape}, the training images {train_shape} (C, H, W); "
            "set data.resolution and data.channels"
        )
    check_images(len(index), shape, spec, "test")
    return ImageSet(torch.from_numpy(source.read(index)), torch.from_numpy(source.labels[index]))
