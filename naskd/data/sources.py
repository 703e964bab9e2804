"""Open the raw images of a :class:`~naskd.spec.datasets.DataSpec`. For :mod:`load`, :mod:`sealed`, :mod:`survey` alone.

Opening lists labels and decodes nothing of an image folder; a source reads the positions that it is asked
for. Which positions a search may ask for is decided in :mod:`load`.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from naskd.data.modalities import MadeModality, PairedModality, SecondModality
from naskd.data.raw import DataReader, Shape, Source, folder
from naskd.data.splits import IndexArray, Split, make_split
from naskd.spec.datasets import DATASETS, DataSpec
from naskd.spec.errors import USERS, InputError, NaskdError, one_line
from naskd.spec.modalities import MODALITIES
from naskd.spec.places import at


def split_of(source: Source, spec: DataSpec) -> Split:
    """The split of a development source."""
    return make_split(
        source.labels,
        val_fraction=spec.val_fraction,
        test_fraction=None if spec.own_test else spec.test_fraction,
        max_train=spec.max_train,
        seed=spec.split_seed,
        class_names=source.class_names,
    )


def open_development(spec: DataSpec, base: Path, cache: Path | None) -> Source:
    """The images that are split: training, validation and, where no other test split is, the sealed part.

    Raises:
        InputError: The images are missing, a class has none, or the test images are among them.
    """
    if spec.test_root is not None:
        _check_apart(folder(base, spec.root), folder(base, spec.test_root))
    return _opened("development", spec, base, cache)


def settled(source: Source, index: IndexArray, channels: int | None = None) -> Source:
    """A source whose images of `index` have one shape; see :meth:`~naskd.data.raw.ImageFiles.settled`.

    Raises:
        InputError: They are of different sizes.
    """
    return source if source.files is None else source.files.settled(index, channels)


def open_test(spec: DataSpec, base: Path, cache: Path | None) -> Source:
    """The test images of data that has a test split of its own. For :mod:`sealed` and :mod:`survey` alone.

    Raises:
        InputError: The images are missing or not readable.
    """
    assert spec.own_test
    return _opened("test", spec, base, cache)


def held_out_part(
    spec: DataSpec, base: Path, cache: Path | None, seen: Source, split: Split
) -> tuple[Source, IndexArray]:
    """Where the test images are, and which of them: the other images of `seen`, or a source of their own.

    Args:
        spec: The data.
        base: Folder that its paths are relative to.
        cache: Folder for decoded images.
        seen: The development source.
        split: Of it.

    Raises:
        InputError: They are missing, or have other classes.
    """
    if not spec.own_test:
        return seen, split.test
    source = open_test(spec, base, cache)
    if source.class_names != seen.class_names:
        different = ", ".join(map(repr, sorted(set(source.class_names) ^ set(seen.class_names))))
        raise InputError(
            f"the test images and the training images have different classes: {different or 'in another order'}"
            f"{' in one of them only' if different else ''}; give both the same class folders"
        )
    return source, np.arange(len(source.labels), dtype=np.int64)


def settled_test(source: Source, index: IndexArray, seen: Source, first: int) -> Source:
    """The test images in the shape of the training images.

    Args:
        source: Of the test images.
        index: Which of them.
        seen: The settled development source.
        first: Position of a training image in it.

    Raises:
        InputError: They have another shape.
    """
    train_shape = seen.shape_at(first)
    source = settled(source, index, train_shape[0])
    if (shape := source.shape_at(int(index[0]))) != train_shape:
        raise InputError(
            f"the test images are {shape}, the training images {train_shape} (C, H, W); "
            "set data.resolution and data.channels"
        )
    return source


def open_unlabelled(spec: DataSpec, base: Path, cache: Path | None, shape: Shape) -> Source:
    """The study's unlabelled images, read in the shape of the others. For :mod:`survey` alone, which knows all others.

    Args:
        spec: The data.
        base: Folder that its paths are relative to.
        cache: Folder for decoded images.
        shape: ``(C, H, W)`` of the others.

    Raises:
        InputError: There are none.
    """
    from naskd.data.kinds import image_folder

    return image_folder.open_unlabelled(folder(base, spec.unlabelled), shape, spec, cache)


def open_modality(
    spec: DataSpec, base: Path, cache: Path | None, first: Source, *, test: bool = False
) -> SecondModality | None:
    """What students see in place of the images of a source; None where they see these.

    Args:
        spec: The data.
        base: Folder that its paths are relative to.
        cache: Folder for decoded images.
        first: The source.
        test: Whether it is that of test images that lie apart.

    Raises:
        InputError: The second modality has files that are missing, or more than the first.
    """
    modality = spec.modality
    if modality is None:
        return None
    if not modality.card.files:
        return MadeModality(modality)
    place = "test_root" if test else "root"
    root = folder(base, getattr(modality, place))
    own = getattr(spec, place)
    if own is not None and folder(base, own).resolve() == root.resolve():
        raise InputError(
            f"data.modality.{place} is data.{place}, so that students would see what teachers see; give another folder"
        )
    return PairedModality(MODALITIES.load(modality.name)(root, f"data.modality.{place}", first, spec, cache))


def _check_apart(root: Path, test_root: Path) -> None:
    root, test_root = root.resolve(), test_root.resolve()
    if root == test_root or root in test_root.parents or test_root in root.parents:
        raise InputError(
            f"data.root = {str(root)!r} and data.test_root = {str(test_root)!r} lie in each other, so "
            "that test images would be trained on; give two separate folders"
        )


def _opened(way: Literal["development", "test"], spec: DataSpec, base: Path, cache: Path | None) -> Source:
    reader: type[DataReader] = DATASETS.load(spec.kind)
    try:
        source = getattr(reader(), way)(spec, base, cache)
    except (NaskdError, OSError):
        raise
    except USERS as error:
        if DATASETS.is_ours(spec.kind):
            raise
        raise InputError(f"data kind {spec.kind!r} raised {one_line(error, reader)}") from error
    if not isinstance(source, Source):
        raise InputError(
            f"data kind {spec.kind!r}: {way} returned {type(source).__name__}; wanted a naskd.data.raw.Source"
            f"{at(getattr(reader, way))}"
        )
    return source
