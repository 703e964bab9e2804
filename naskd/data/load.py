"""Load what a search may see of its data: the training and the validation images."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from naskd.data.copies import Apart, read_apart
from naskd.data.images import ImageSet, SearchData, as_tensor
from naskd.data.modalities import SecondModality, check_second
from naskd.data.raw import ImageArray, Source, check_images
from naskd.data.sources import open_development, open_modality, settled, split_of
from naskd.data.splits import IndexArray, Split
from naskd.spec.datasets import DataSpec
from naskd.spec.design import content_id
from naskd.spec.errors import InputError

_STATISTICS_BYTES = 2**24
"""Of images that are added up at once, in whole numbers of four and eight times as many bytes."""


def load_search_data(spec: DataSpec, base: Path, cache: Path | None = None) -> SearchData:
    """Read the training and the validation images into memory.

    Images of the test split are neither decoded nor hashed. Validation images that are also training images are left
    out; see :mod:`naskd.data.copies`. ``digits`` scales its 0 to 16 to 0 to 255; it and
    an ``image_folder`` without `test_root` have their test part cut off first, by `split_seed` alone.

    Args:
        spec: Which images, at which resolution, split how.
        base: Folder that the paths in `spec` are relative to: the study file's.
        cache: Folder where decoded images are kept (of ``digits`` and of an ``image_folder``); None decodes at every
            call. Entries are found by the content of the files and checked against their hash.

    Raises:
        InputError: Images are missing, corrupt, of unequal size or too many for ``max_bytes``; a class is
            too small; there are unlabelled images, see :func:`naskd.data.survey.survey_and_load`.
    """
    if spec.unlabelled is not None:
        # Without the test images, which nobody may open here, nobody knows which unlabelled ones are among them.
        raise InputError(
            "unlabelled images are loaded by naskd.data.survey.survey_and_load, which leaves out test images"
        )
    source = open_development(spec, base, cache)
    split = split_of(source, spec)
    second = open_modality(spec, base, cache, source)
    return read_search_data(settled(source, np.concatenate([split.train, split.val])), split, spec, second)


def read_search_data(
    source: Source, split: Split, spec: DataSpec, second: SecondModality | None = None
) -> SearchData:
    """Read the training and the validation images of an open source; see :func:`load_search_data`.

    Args:
        source: Of the first modality.
        split: Of it.
        spec: Whose data they are.
        second: What students see in its place; None where they see the first.

    Raises:
        InputError: Images cannot be read, or are too many.
    """
    check_images(
        len(split.train) + len(split.val),
        source.shape_at(int(split.train[0])),
        spec,
        "training and validation",
    )
    return search_data_of(read_apart(source, split), source, spec, second)


def search_data_of(
    apart: Apart, source: Source, spec: DataSpec, second: SecondModality | None = None
) -> SearchData:
    """What a search sees of images that were read; arguments and errors as of :func:`read_search_data`."""
    split, images = apart.split, apart.images
    index = np.concatenate([split.train, split.val])
    shape, labels = source.shape_at(int(index[0])), source.labels[index]
    first = _search_data(images, labels, index, source, split)
    if second is None:
        assert spec.modality is None, "whoever opens the source opens what students see of it"
        return first
    assert spec.modality is not None
    seen = second.settled(index).read(index, images)
    check_second(seen.shape[1:], shape, len(index), spec, "training and validation")
    mean, std = channel_statistics(seen[: len(split.train)])
    return replace(
        first,
        train=_image_set(seen[: len(split.train)], labels[: len(split.train)]),
        val=_image_set(seen[len(split.train) :], labels[len(split.train) :]),
        mean=mean,
        std=std,
        first=first,
        modality_hash=_data_hash(seen, labels, np.argsort(index), source.class_names),
        labels_teach=spec.modality.labels,
    )


def _search_data(
    images: ImageArray, labels: IndexArray, index: IndexArray, source: Source, split: Split
) -> SearchData:
    n_train = len(split.train)
    mean, std = channel_statistics(images[:n_train])
    return SearchData(
        train=_image_set(images[:n_train], labels[:n_train]),
        val=_image_set(images[n_train:], labels[n_train:]),
        class_names=source.class_names,
        mean=mean,
        std=std,
        data_hash=_data_hash(images, labels, np.argsort(index), source.class_names),
        split_hash=content_id({part: getattr(split, part).tolist() for part in ("train", "val", "test")}),
    )


def channel_statistics(images: ImageArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation of each channel on the [0, 1] scale, from exact integer sums.

    Args:
        images: ``(N, C, H, W)``.

    Returns:
        Mean and standard deviation; the latter is at least 1/255.
    """
    total, total_square = 0, 0
    step = max(1, _STATISTICS_BYTES // images[0].size)
    for start in range(0, len(images), step):
        chunk = images[start : start + step].astype(np.uint32)
        total = total + chunk.sum(axis=(0, 2, 3), dtype=np.int64)
        total_square = total_square + np.square(chunk).sum(axis=(0, 2, 3), dtype=np.int64)
    count = images.shape[0] * images.shape[2] * images.shape[3]
    mean = np.asarray(total) / count
    # The variance is what is left of two large numbers; in Python's integers nothing of it is lost.
    variance = [
        (count * int(square) - int(first) ** 2) / count**2
        for first, square in zip(np.asarray(total), np.asarray(total_square), strict=True)
    ]
    return tuple((mean / 255).tolist()), tuple(max(v**0.5, 1.0) / 255 for v in variance)


def _image_set(images: ImageArray, labels: IndexArray) -> ImageSet:
    return ImageSet(as_tensor(images), torch.from_numpy(labels))


def _data_hash(
    images: ImageArray, labels: IndexArray, order: IndexArray, class_names: tuple[str, ...]
) -> str:
    """Hash of images and labels in the order of the source: the same however they are split."""
    content = hashlib.sha256(repr((images.shape, class_names)).encode())
    content.update(labels[order].astype("<i8").tobytes())
    for position in order:
        content.update(images[position].data)
    return content.hexdigest()[:12]
