"""Data sets of torchvision by name: its classes find the files and their labels, and naskd reads the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from naskd.data.encoded import source_of
from naskd.data.image_files import ImageFile
from naskd.data.listing import Listing
from naskd.data.raw import DataReader, Source, array_source, folder
from naskd.spec.datasets import DataSpec
from naskd.spec.errors import InputError, one_line
from naskd.spec.option import option_problems

Settings = Mapping[str, Any]


class Entry(NamedTuple):
    """How torchvision opens a data set.

    Args:
        name: Of its class.
        seen: Arguments for each part that is split into training and validation.
        test: For the test images; None where there are none apart.
    """

    name: str
    seen: Sequence[Settings]
    test: Settings | None


def _by_flag(name: str) -> Entry:
    return Entry(name, [{"train": True}], {"train": False})


def _by_split(name: str, *seen: str, test: str = "test") -> Entry:
    return Entry(name, [{"split": split} for split in seen], {"split": test})


ENTRIES: Mapping[str, Entry] = {
    "cifar10": _by_flag("CIFAR10"),
    "cifar100": _by_flag("CIFAR100"),
    "country211": _by_split("Country211", "train", "valid"),
    "dtd": _by_split("DTD", "train", "val"),
    "eurosat": Entry("EuroSAT", [{}], None),
    "fashionmnist": _by_flag("FashionMNIST"),
    "fgvcaircraft": _by_split("FGVCAircraft", "trainval"),
    "flowers102": _by_split("Flowers102", "train", "val"),
    "food101": _by_split("Food101", "train"),
    "gtsrb": _by_split("GTSRB", "train"),
    "imagenette": _by_split("Imagenette", "train", test="val"),
    "kmnist": _by_flag("KMNIST"),
    "mnist": _by_flag("MNIST"),
    "oxfordiiitpet": _by_split("OxfordIIITPet", "trainval"),
    "qmnist": _by_flag("QMNIST"),
    "renderedsst2": _by_split("RenderedSST2", "train", "val"),
    "stanfordcars": _by_split("StanfordCars", "train"),
    "stl10": _by_split("STL10", "train"),
    "sun397": Entry("SUN397", [{}], None),
    "svhn": _by_split("SVHN", "train"),
    "usps": _by_flag("USPS"),
}
"""By the names that studies say; torchvision's own validation images are split anew with the training images."""


class Torchvision(DataReader):
    """Reads, or fetches where the study says so, the files that torchvision keeps in ``root``."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        name = _name(spec)
        return open_torchvision(name, ENTRIES[name].seen, spec, base, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        name = _name(spec)
        test = ENTRIES[name].test
        assert test is not None
        return open_torchvision(name, [test], spec, base, cache)


def _name(spec: DataSpec) -> str:
    """Raises InputError where a spec that was made in Python names no data set."""
    if problems := option_problems(spec.card.options, spec.options, "data 'torchvision'"):
        raise InputError(problems)
    return str(spec.option("dataset"))


def open_torchvision(
    name: str, parts: Sequence[Settings], spec: DataSpec, base: Path, cache: Path | None
) -> Source:
    """The images of one or several parts of a data set, by path or as arrays.

    Raises:
        InputError: torchvision does not find them.
    """
    from torchvision import datasets

    root, entry = folder(base, spec.root), ENTRIES[name]
    opened = []
    for settings in parts:
        kind = getattr(datasets, entry.name)
        if settings.get("train") and getattr(kind, "test_list", None):
            # CIFAR's checksums include the test file whichever part is asked for; without it in the list, a search
            # does not even touch that file.
            kind = type(f"Train{entry.name}", (kind,), {"test_list": []})
        try:
            opened.append(kind(root, download=spec.download, **settings))
        except (RuntimeError, OSError, ValueError, ImportError) as error:
            source = getattr(kind, "url", None)
            fetch = (
                f"fetch {source} and unpack it there" if isinstance(source, str) else "put its files there"
            )
            where = (
                f", so that {str(root / kind.base_folder)!r} exists" if hasattr(kind, "base_folder") else ""
            )
            raise InputError(
                f"torchvision's {entry.name} is not in data.root = {str(root)!r} ({one_line(error)}); set "
                f"data.download = true, or {fetch}{where}"
            ) from error
    first = opened[0]
    labels = np.concatenate([np.asarray(_labels(part), np.int64).reshape(-1) for part in opened])
    names = _class_names(first, int(labels.max(initial=-1)) + 1)
    if getattr(first, "data", None) is not None:
        return array_source(np.concatenate([_pixels(part) for part in opened]), labels, names, spec, cache)
    paths = [path for part in opened for path in _paths(part)]
    order = sorted(range(len(paths)), key=paths.__getitem__)  # SUN397 has them as the disk does
    images = [ImageFile(paths[position]) for position in order]
    return source_of(Listing(root, names, images, labels[order], {}), spec, cache)


def _found(dataset: Any, *attributes: str) -> Any:
    """What a data set has under the first of some names that it knows."""
    return next((getattr(dataset, name) for name in attributes if hasattr(dataset, name)), None)


def _labels(dataset: Any) -> Sequence[int]:
    found = _found(dataset, "_labels", "targets", "labels")
    if found is None:
        return [label for _, label in _found(dataset, "_samples", "samples")]
    labels: Sequence[int] = (
        found[:, 0] if getattr(found, "ndim", 1) == 2 else found
    )  # QMNIST has more columns
    return labels


def _paths(dataset: Any) -> list[str]:
    files = _found(dataset, "_image_files", "_images")
    if files is None:
        files = [path for path, *_ in _found(dataset, "_samples", "samples")]
    return [str(path) for path in files]


def _pixels(dataset: Any) -> Any:
    """``(N, H, W)`` or ``(N, H, W, 3)``; some have channels first."""
    pixels = np.asarray(dataset.data)
    return pixels.transpose(0, 2, 3, 1) if pixels.ndim == 4 and pixels.shape[1] == 3 else pixels


def _class_names(dataset: Any, n_labels: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if not names or len(names) < n_labels:
        return tuple(map(str, range(n_labels)))
    return tuple(name if isinstance(name, str) else str(name[0]) for name in names)
