"""Training images cut into what students, teachers and judges see: no image is in two of these parts.

Within each class images are drawn in a fixed random order, so that any number of them is even over the classes, and
a teacher of more images has seen those of its students and others.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from naskd.data.images import ImageSet, SearchData
from naskd.data.load import channel_statistics


@dataclass(frozen=True)
class Splits:
    """How many images each part has."""

    student: int
    teacher: int
    val: int
    test: int


@dataclass(frozen=True, eq=False)
class Parts:
    """What is trained on and judged by.

    Args:
        student, teacher: Training images of each with the same validation images.
        test: For the record alone.
    """

    student: SearchData
    teacher: SearchData
    test: ImageSet


def read(archive: Path, decoded: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images uint8 ``(N, C, H, W)``, labels and class names of a zip file of ``<class>/<name>.jpg``.

    Args:
        archive: The file.
        decoded: Where they are kept decoded.
    """
    from PIL import Image

    if not decoded.is_file():
        with zipfile.ZipFile(archive) as file:
            names = sorted(n for n in file.namelist() if n.lower().endswith((".jpg", ".png")))
            classes = sorted({name.split("/")[-2] for name in names})
            images = np.stack(
                [
                    np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB")).transpose(2, 0, 1)
                    for name in names
                ]
            )
        labels = np.asarray([classes.index(name.split("/")[-2]) for name in names])
        part = decoded.with_suffix(".part.npz")
        np.savez(part, images=images, labels=labels, classes=np.asarray(classes))
        part.replace(decoded)
    with np.load(decoded) as kept:
        return kept["images"], kept["labels"], tuple(map(str, kept["classes"]))


def even_order(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Places of images, drawn within each class, such that any number of the first is even over the classes."""
    draw = np.random.default_rng(0)
    by_class = [draw.permutation(np.flatnonzero(labels == number)) for number in range(n_classes)]
    shortest = min(map(len, by_class))
    return np.stack([places[:shortest] for places in by_class], axis=1).ravel()


def cut(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], sizes: Splits) -> Parts:
    """The parts of a data set.

    Raises:
        ValueError: There are not enough images.
    """
    order = even_order(labels, len(classes))
    needed = sizes.val + sizes.test + max(sizes.student, sizes.teacher)
    if needed > len(order):
        raise ValueError(f"{needed:,} images are asked for; there are {len(order):,} evenly over the classes")
    val, test, pool = np.split(order[:needed], [sizes.val, sizes.val + sizes.test])
    mean, std = channel_statistics(images[pool[: sizes.teacher]])
    content = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()[:12]

    def part(places: np.ndarray) -> ImageSet:
        return ImageSet(
            torch.from_numpy(np.ascontiguousarray(images[places])),
            torch.from_numpy(labels[places].astype(np.int64)),
        )

    def data(n_train: int) -> SearchData:
        return SearchData(
            part(pool[:n_train]), part(val), classes, mean, std, content, f"{n_train}-{sizes.val}"
        )

    return Parts(data(sizes.student), data(sizes.teacher), part(test))
