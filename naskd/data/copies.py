"""The same picture in two splits: copies and links, found by their pixels as they are read, and kept out of one.

A picture that trains does not judge. So validation images that are also training images are left out of the validation
split, and test images that are also training or validation images are left out of the test split, also where they lie
apart. What trains never depends on what the others are. Copies within one split stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from naskd.data.raw import ImageArray, Source, pixel_digests
from naskd.data.splits import IndexArray, Split
from naskd.spec.errors import InputError


@dataclass(frozen=True, eq=False)
class Apart:
    """Training and validation images of which none is in both.

    Args:
        split: Without the validation images that are also training images; its test part as it was cut off.
        images: ``(N, C, H, W)`` of the training and then the validation images.
        digests: ``(N, 32)`` of their pixels.
        val_copies: ``(n,)`` positions of the validation images that are left out.
        copied: ``(n,)`` positions of a training image for each of them.
    """

    split: Split
    images: ImageArray
    digests: ImageArray
    val_copies: IndexArray
    copied: IndexArray


def read_apart(source: Source, split: Split) -> Apart:
    """Read training and validation images, and keep each picture in one of the two.

    Raises:
        InputError: They cannot be read, or all validation images are also training images.
    """
    index, n_train = np.concatenate([split.train, split.val]), len(split.train)
    images = source.read(index)
    digests = pixel_digests(images)
    position = dict(zip(map(bytes, digests[:n_train]), split.train.tolist(), strict=True))
    found = [position.get(bytes(row), -1) for row in digests[n_train:]]
    copied = np.array(found, np.int64)
    again = copied >= 0
    if not again.any():
        return Apart(split, images, digests, split.val[again], copied[again])
    if again.all():
        raise InputError(
            f"all {len(again)} validation images are also training images, so that none is left to judge by; remove "
            "the copies"
        )
    kept = replace(split, val=split.val[~again])
    del images
    # Read again, since images may rest in a file that is larger than memory.
    read = source.read(np.concatenate([kept.train, kept.val]))
    rows = np.concatenate([np.ones(n_train, bool), ~again])
    return Apart(kept, read, digests[rows], split.val[again], copied[again])


def new_images(digests: ImageArray, others: ImageArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which test images are neither training nor validation images.

    Args:
        digests: ``(N, 32)`` of the pixels of the test images.
        others: ``(M, 32)`` of those of the training and validation images.

    Returns:
        ``(N,)``.

    Raises:
        InputError: None are.
    """
    known = set(map(bytes, others))
    new = np.array([bytes(row) not in known for row in digests], bool)
    if not new.any():
        raise InputError(
            f"all {len(new)} test images are also training or validation images, so that none is left to test on; give "
            "others, or remove the copies"
        )
    return new


class Copies:
    """How many images of one split are also in another, and what is said of it.

    Args:
        seen: The development source.
        apart: Its training and validation images.
        test: Source of the test images.
        test_index: ``(N,)`` their positions in it.
        digests: ``(N, 32)`` of their pixels.
    """

    def __init__(
        self, seen: Source, apart: Apart, test: Source, test_index: IndexArray, digests: ImageArray
    ) -> None:
        self._seen, self._test, self._apart = seen, test, apart
        rows, n_train = list(map(bytes, apart.digests)), len(apart.split.train)
        split = apart.split
        train = dict(zip(rows[:n_train], split.train.tolist(), strict=True))
        val = dict(zip(rows[n_train:], split.val.tolist(), strict=True))
        self._known = {**val, **train}
        sealed = list(map(bytes, digests))
        self._sealed = list(zip(sealed, test_index.tolist(), strict=True))
        of_position = dict(zip(split.train.tolist(), rows[:n_train], strict=True))
        # Test images last, so that an example is rather of the others.
        first: dict[bytes, tuple[int, Source, int]] = {}
        self._in_classes: dict[bytes, tuple[tuple[int, Source, int], tuple[int, Source, int]]] = {}
        for some, source, index in (
            (rows, seen, np.concatenate([split.train, split.val])),
            ([of_position[position] for position in apart.copied.tolist()], seen, apart.val_copies),
            (sealed, test, test_index),
        ):
            for row, label, position in zip(some, source.labels[index].tolist(), index.tolist(), strict=True):
                one = first.setdefault(row, (label, source, position))
                if one[0] != label:
                    self._in_classes.setdefault(row, (one, (label, source, position)))
        self.counts = {
            "test in train": sum(row in train for row in sealed),
            "test in val": sum(row in val for row in sealed),
            "val in train": len(apart.val_copies),
            "in two classes": len(self._in_classes),
        }

    def warnings(self) -> Iterator[str]:
        """A line for each kind."""
        if twice := [(row, position) for row, position in self._sealed if row in self._known]:
            row, position = twice[0]
            yield (
                f"{len(twice)} of {len(self._sealed)} test images are also training or validation images "
                f"({self.counts['test in train']} of the former, {self.counts['test in val']} of the latter)"
                f"{self._example(self._test, position, self._known[row])}: they are left out of the test split"
            )
        if n := len(self._apart.val_copies):
            position, other = int(self._apart.val_copies[0]), int(self._apart.copied[0])
            yield (
                f"{n} of {n + len(self._apart.split.val)} validation images are also training images"
                f"{self._example(self._seen, position, other)}: they are left out of the validation split"
            )
        if n := self.counts["in two classes"]:
            first, second = next(iter(self._in_classes.values()))
            yield (
                f"{n} image{' is' if n == 1 else 's are'} in more than one class, such as "
                f"{self._placed(*first)} = {self._placed(*second)}"
            )

    def _placed(self, label: int, source: Source, position: int) -> str:
        """An image by its file and its class, or by its class where it is no file."""
        name = self._seen.class_names[label]
        return (
            f"an image of class {name!r}"
            if source.files is None
            else f"{source.files.name(position)} (class {name!r})"
        )

    def _example(self, source: Source, position: int, other: int) -> str:
        if source.files is None or self._seen.files is None:
            return ""
        return f", such as {source.files.name(position)} = {self._seen.files.name(other)}"
