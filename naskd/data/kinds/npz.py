"""Arrays of images and labels: an ``.npz``, or a folder with an ``.npy`` of each, which is mapped."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from naskd.data.classes import check_labelled, class_names_of, labels_of
from naskd.data.raw import DataReader, ImageArray, Source, array_source, folder
from naskd.spec.datasets import ARRAYS, DataSpec
from naskd.spec.errors import InputError, one_line
from naskd.spec.paths import files_of
from naskd.spec.registry import nearest

NAMES = "class_names"
"""An array of the names of classes 0, 1, ..., where there is one."""


class Arrays(DataReader):
    """Reads ``root``, and ``test_root`` where there is one; or test images from arrays of other names in ``root``."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        arrays = _read(spec, base, "root", spec.option("images"), spec.option("labels"))
        return arrays.source(arrays.class_names(), spec, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        names = _read(spec, base, "root", spec.option("images"), spec.option("labels")).class_names()
        if spec.test_root is not None:
            arrays = _read(spec, base, "test_root", spec.option("images"), spec.option("labels"))
        else:
            arrays = _read(spec, base, "root", spec.option("test_images"), spec.option("test_labels"))
        return arrays.source(names, spec, cache)


class _Arrays(NamedTuple):
    place: str
    images: ImageArray
    labels: list[object]
    names: tuple[str, ...] | None

    def class_names(self) -> tuple[str, ...]:
        return self.names or class_names_of(self.labels, self.place)

    def source(self, names: tuple[str, ...], spec: DataSpec, cache: Path | None) -> Source:
        labels = self.labels
        if self.names is not None and all(isinstance(label, int) for label in labels):
            known = self.names
            wrong = [i for i, label in enumerate(labels) if not 0 <= int(str(label)) < len(known)]
            if wrong:
                raise InputError(
                    f"{self.place}: {len(wrong)} labels are no number of the {len(known)} names in {NAMES!r}, "
                    f"such as {labels[wrong[0]]} at position {wrong[0]}"
                )
            labels = [known[int(str(label))] for label in labels]
        numbers = labels_of(labels, names, self.place, _position)
        return array_source(self.images, numbers, names, spec, cache)


def _position(position: int) -> str:
    return f"position {position}"


def _read(spec: DataSpec, base: Path, key: str, images_name: str, labels_name: str) -> _Arrays:
    root = folder(base, getattr(spec, key))
    if root.is_dir():
        images, labels = _npy(root, images_name), _npy(root, labels_name)
        names = _npy(root, NAMES) if (root / f"{NAMES}.npy").exists() else None
    else:
        files = files_of(getattr(spec, key), base, ARRAYS)
        if len(files) != 1:
            raise InputError(
                f"data.{key} = {str(root)!r} means {len(files)} files; it must be one .npz, or a folder"
            )
        images, labels, names = _npz(files[0], images_name, labels_name)
    place = f"data.{key} = {getattr(spec, key)!r}"
    images = _checked(images, images_name, place)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(images),):
        raise InputError(
            f"{place}: {labels_name!r} is {labels.shape}, {images_name!r} has {len(images)} images; "
            f"it must be ({len(images)},)"
        )
    if labels.dtype.kind not in "iuUS":
        whole = labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.rint(labels)).all()
        if not whole:
            raise InputError(
                f"{place}: {labels_name!r} is {labels.dtype}; it must be whole numbers or strings"
            )
        labels = labels.astype(np.int64)
    values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in labels.tolist()]
    check_labelled(values, place, _position)
    return _Arrays(place, images, values, None if names is None else tuple(map(str, names.tolist())))


def _checked(images: Any, name: str, place: str) -> ImageArray:
    shape = images.shape
    if len(shape) == 4 and shape[3] == 1:
        images = images[..., 0]
    if (
        images.dtype != np.uint8
        or not (images.ndim == 3 or (images.ndim == 4 and shape[3] == 3))
        or not len(images)
    ):
        hint = ""
        if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
            hint = "; channels come last: images.transpose(0, 2, 3, 1)"
        elif images.dtype.kind == "f":
            hint = "; of images in [0, 1]: (images * 255).round().astype('uint8')"
        raise InputError(
            f"{place}: {name!r} is {images.dtype} {shape}; it must be uint8 (N, H, W) or (N, H, W, 1 or 3){hint}"
        )
    found: ImageArray = images
    return found


def _npy(root: Path, name: str) -> Any:
    path = root / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        there = sorted(found.stem for found in root.glob("*.npy"))
        known = f"; the folder has {', '.join(there) or 'no .npy'}{nearest(name, there)}"
        raise InputError(f"the array {str(path)!r} cannot be read ({one_line(error)}){known}") from error


def _npz(path: Path, images: str, labels: str) -> tuple[Any, Any, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if not hasattr(arrays, "files"):
                raise ValueError("it holds one array and no names")
            for name in (images, labels):
                if name not in arrays.files:
                    raise InputError(
                        f"{str(path)!r} has no array {name!r}; it has {', '.join(arrays.files)}"
                        f"{nearest(name, arrays.files)}"
                    )
            return arrays[images], arrays[labels], arrays[NAMES] if NAMES in arrays.files else None
    except InputError:
        raise
    except Exception as error:  # zip, zlib, numpy and pickle each have errors of their own
        raise InputError(f"{str(path)!r} cannot be read as .npz ({one_line(error)})") from error
