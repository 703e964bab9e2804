"""The images of ``--images``, or made-up ones."""

import argparse
import hashlib
import io
import random
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from naskd.data.images import ImageSet, SearchData
from naskd.data.load import channel_statistics

SUFFIXES = (".jpg", ".jpeg", ".png")


def load_images(args: argparse.Namespace, n_train: int, n_val: int) -> SearchData:
    """The images of ``--images``, or made-up ones: no time depends on what they show, but accuracies do."""
    if args.images is None:
        return made_up_images(n_train, n_val)
    return read_images(args.images, n_train, n_val)


def made_up_images(n_train: int, n_val: int, resolution: int = 32) -> SearchData:
    """Noise with labels in turn, in the shape of CIFAR-10."""
    n = n_train + n_val
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (n, 3, resolution, resolution), dtype=np.uint8)
    return _search_data(images, np.arange(n) % 10, n_train, tuple(map(str, range(10))))


def read_images(path: Path, n_train: int, n_val: int) -> SearchData:
    """Draw equally many images a class from ``<class>/<name>.jpg`` in a folder or a zip file.

    Raises:
        ValueError: There are not enough, or they differ in shape.
    """
    from PIL import Image

    names = sorted(_image_names(path))
    random.Random(0).shuffle(names)
    classes = sorted({name.split("/")[-2] for name in names})
    quota = -(-(n_train + n_val) // max(1, len(classes)))
    drawn = dict.fromkeys(classes, 0)
    wanted = []
    for name in names:
        drawn[name.split("/")[-2]] += 1
        if drawn[name.split("/")[-2]] <= quota:
            wanted.append(name)
    if min(drawn.values(), default=0) < quota:
        raise ValueError(
            f"--images {path}: {n_train} + {n_val} images need {quota} in each of {len(classes)} classes, "
            f"the smallest has {min(drawn.values(), default=0)}; ask for fewer"
        )
    pixels = [
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
        for data in _contents(path, wanted)
    ]
    if len({p.shape for p in pixels}) != 1:
        raise ValueError(f"--images {path}: images must be of one shape")
    labels = np.asarray([classes.index(name.split("/")[-2]) for name in wanted])
    return _search_data(np.stack(pixels), labels, n_train, tuple(classes), n_val)


def _image_names(path: Path) -> list[str]:
    if path.is_dir():
        found = [p.relative_to(path).as_posix() for p in path.rglob("*")]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
    else:
        raise ValueError(f"--images {path}: neither a folder nor a zip file of <class>/<name>.jpg")
    return [name for name in found if name.lower().endswith(SUFFIXES) and "/" in name]


def _contents(path: Path, names: Sequence[str]) -> Iterator[bytes]:
    if path.is_dir():
        yield from ((path / name).read_bytes() for name in names)
        return
    with zipfile.ZipFile(path) as archive:
        yield from map(archive.read, names)


def _search_data(
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    n_train: int,
    classes: tuple[str, ...],
    n_val: int | None = None,
) -> SearchData:
    images = np.ascontiguousarray(images)
    stop = len(images) if n_val is None else n_train + n_val
    mean, std = channel_statistics(images[:n_train])
    train, val = (
        ImageSet(torch.from_numpy(images[part].copy()), torch.from_numpy(labels[part].astype(np.int64)))
        for part in (slice(0, n_train), slice(n_train, stop))
    )
    content = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()[:12]
    return SearchData(train, val, classes, mean, std, content, f"{n_train}-{stop - n_train}")
