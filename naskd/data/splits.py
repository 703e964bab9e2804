"""Stratified splits: the one place where it is decided which image is for training, validation or test.

Pure numpy on labels. The random keys are the raw output of the PCG64 bit generator, whose stream NumPy keeps
for ever; the methods of ``Generator`` may change between versions (NEP 19), and a split that moves with a
NumPy upgrade would let sealed test images into the training of a later run.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from naskd.spec.errors import InputError
from naskd.spec.seeds import derive_seed

IndexArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of the images in their source, each part ascending and disjoint from the others.

    Args:
        train: ``(N_train,)``.
        val: ``(N_val,)``.
        test: ``(N_test,)``, empty where the source has a test split of its own.
    """

    train: IndexArray
    val: IndexArray
    test: IndexArray


def make_split(
    labels: IndexArray,
    *,
    val_fraction: float,
    test_fraction: float | None,
    max_train: int | None,
    seed: int,
    class_names: tuple[str, ...] | None = None,
) -> Split:
    """Cut off the test part, then the validation part, then keep at most `max_train` of the rest.

    The test part depends on `labels`, `test_fraction` and `seed` alone, the validation part also on
    `val_fraction`, so that changing a later setting never moves an image out of an earlier part.

    Args:
        labels: ``(N,)`` class of each image, in [0, K); every class occurs.
        val_fraction: Of what is left after the test part, in (0, 1).
        test_fraction: Of all, in (0, 1); None cuts off no test part.
        max_train: At most this many training images, at least one a class; None for all.
        seed: Of the three draws.
        class_names: For messages.

    Raises:
        InputError: A class has no images or too few to be in each part, or `max_train` is less than the number of
            classes.
    """
    rest = np.arange(len(labels), dtype=np.int64)
    if empty := sorted(set(range(len(class_names or ()))) - set(np.unique(labels).tolist())):
        assert class_names is not None
        others = f", nor have {len(empty) - 1} others" if len(empty) > 1 else ""
        raise InputError(
            f"class {class_names[empty[0]]!r} has no images{others}; add images or remove the class"
        )
    test = rest[:0]
    if test_fraction is not None:
        test, rest = _cut(
            rest, labels, test_fraction, derive_seed("test split", seed), "test_fraction", class_names
        )
    val, train = _cut(rest, labels, val_fraction, derive_seed("val split", seed), "val_fraction", class_names)
    if max_train is not None and max_train < len(train):
        n_classes = int(labels.max()) + 1
        if max_train < n_classes:
            raise InputError(f"max_train is {max_train}; at least {n_classes} is needed, one image a class")
        train = train[draw_stratified(labels[train], max_train, derive_seed("max_train", seed))]
    return Split(train, val, test)


def draw_stratified(labels: IndexArray, n_drawn: int, seed: int, *, leave_one: bool = False) -> IndexArray:
    """Draw `n_drawn` positions, each class in proportion to its size and with at least one.

    Args:
        labels: ``(N,)`` classes in [0, K); every class occurs.
        n_drawn: In [K, N] (``[K, N - K]`` with `leave_one`).
        seed: Of the draw; what a smaller draw takes of a class is part of what a larger one takes.
        leave_one: Leave at least one of each class undrawn.

    Returns:
        ``(n_drawn,)`` ascending positions.

    Raises:
        InputError: `n_drawn` is out of range, or a class has fewer than two images and one must be left.
    """
    counts = np.bincount(labels)
    most = counts - 1 if leave_one else counts
    if (most < 1).any():
        raise InputError(
            f"class {int(np.argmin(most))} has {counts.min()} images; a stratified draw needs more"
        )
    if not len(counts) <= n_drawn <= most.sum():
        raise InputError(
            f"cannot draw {n_drawn} of {len(labels)} images of {len(counts)} classes; "
            f"allowed: {len(counts)} to {most.sum()}"
        )
    keys = np.random.PCG64(seed).random_raw(len(labels))
    order = np.lexsort((keys, labels))
    first_of_class = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - first_of_class[labels[order]]
    drawn = order[rank < _allocate(counts, most, n_drawn)[labels[order]]]
    return np.sort(drawn).astype(np.int64)


def _cut(
    index: IndexArray,
    labels: IndexArray,
    fraction: float,
    seed: int,
    field: str,
    class_names: tuple[str, ...] | None,
) -> tuple[IndexArray, IndexArray]:
    """Cut a stratified `fraction` off `index`: the part and the rest, both ascending."""
    counts = np.bincount(labels[index])
    small = np.flatnonzero(counts < 2)
    if len(small):
        name = class_names[small[0]] if class_names else str(small[0])
        raise InputError(
            f"class {name!r} has too few images to have one in each split ({counts[small[0]]} left for the "
            f"cut of {field} = {fraction}); add images or remove the class"
        )
    n_drawn = min(max(round(fraction * len(index)), len(counts)), len(index) - len(counts))
    drawn = draw_stratified(labels[index], n_drawn, seed, leave_one=True)
    return index[drawn], np.delete(index, drawn)


def _allocate(counts: IndexArray, most: IndexArray, total: int) -> IndexArray:
    """Largest remainders: whole numbers in [1, `most`] with sum `total`, nearest to ``total * counts / N``.

    All in integers, so that ties do not depend on rounding; they fall to the first class.
    """
    n_images = int(counts.sum())
    share = np.clip(total * counts // n_images, 1, most)
    while (missing := total - int(share.sum())) != 0:
        shortfall = total * counts - share * n_images
        if missing > 0:
            share[np.argmax(np.where(share < most, shortfall, np.iinfo(np.int64).min))] += 1
        else:
            share[np.argmin(np.where(share > 1, shortfall, np.iinfo(np.int64).max))] -= 1
    return share
