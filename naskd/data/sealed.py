"""The test split: opened for the final training of chosen designs, and for nothing else.

Nothing that a search reaches may import this module (an import contract in ``pyproject.toml``): a test split
that has steered choices no longer measures what it claims to.
"""

from pathlib import Path

import numpy as np
import torch

from naskd.data.images import ImageSet
from naskd.data.raw import check_images
from naskd.data.sources import held_out_part, open_development, settled, settled_test, split_of
from naskd.spec.datasets import DataSpec


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
    seen = settled(development, np.concatenate([split.train, split.val]))
    source, index = held_out_part(spec, base, cache, development, split)
    source = settled_test(source, index, seen, int(split.train[0]))
    check_images(len(index), source.shape_at(int(index[0])), spec, "test")
    return ImageSet(torch.from_numpy(source.read(index)), torch.from_numpy(source.labels[index]))
