"""Training images cut into what students, teachers and judges see: no image is in two of these parts.

Within each class images are drawn in a fixed random order, so that any number of them is even over the classes, and
a teacher of more images has seen those of its students and others.
"""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Collection, Mapping
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
        archive: The file; it may be gone where they are decoded.
        decoded: Where they are kept decoded, with the archive's content, so that those of another are not taken.
    """
    from PIL import Image

    with archive.open("rb") if archive.is_file() else contextlib.nullcontext() as file:
        source = hashlib.file_digest(file, "sha256").hexdigest() if file is not None else None
    if not decoded.is_file() or source not in (None, _source_of(decoded)):
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
        np.savez(
            part, images=images, labels=labels, classes=np.asarray(classes), source=np.asarray(source or "")
        )
        part.replace(decoded)
    with np.load(decoded) as kept:
        return kept["images"], kept["labels"], tuple(map(str, kept["classes"]))


def _source_of(decoded: Path) -> str:
    """SHA-256 of the archive; "" where an earlier version did not note it."""
    with np.load(decoded) as kept:
        return str(kept["source"]) if "source" in kept else ""


def unpacked(
    archive: Path, out: Path, parts: Mapping[str, int], flat: Collection[str] = (), *, prefixed: bool = False
) -> None:
    """Have images of a zip file in folders of class folders; even over the classes, and none in two parts.

    Args:
        archive: Of ``<class>/<name>.jpg``.
        out: Where the folders are made, or found as an earlier call has left them.
        parts: Images of each folder, by its name.
        flat: Folders of these that have no class folders.
        prefixed: Whether files are named by their class, too.

    Raises:
        SystemExit: There are not enough images, or a folder holds others: those of other sizes may be in two parts.
    """
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith((".jpg", ".png")))
        classes = sorted({name.split("/")[-2] for name in names})
        labels = np.asarray([classes.index(name.split("/")[-2]) for name in names])
        order = even_order(labels, len(classes))
        if sum(parts.values()) > len(order):
            raise SystemExit(f"{sum(parts.values()):,} images are asked for; there are {len(order):,}")
        for part, n in parts.items():
            chosen, order = order[:n], order[n:]
            wanted = {}
            for place in chosen:
                of_class, name = classes[labels[place]], Path(names[place]).name
                folder = out / part / ("" if part in flat else of_class)
                wanted[folder / (f"{of_class}-{name}" if prefixed else name)] = names[place]
            there = {path for path in (out / part).rglob("*") if path.is_file()}
            if others := there - wanted.keys():
                raise SystemExit(
                    f"{out / part} holds {len(others):,} other images, such as {min(others).name}, of other sizes or "
                    "another archive; remove it, or give another --out"
                )
            for target, name in wanted.items():
                if target not in there or target.stat().st_size != file.getinfo(name).file_size:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(file.read(name))


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
