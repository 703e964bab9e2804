"""Arrays of images and labels: an ``.npz``, or a folder with an ``.npy`` of each, which is mapped."""

from pathlib import Path
from typing import Any

import numpy as np

from naskd.data.arrays import NAMES, LabelledArrays, labelled_arrays
from naskd.data.raw import DataReader, Source, folder
from naskd.spec.datasets import ARRAYS, DataSpec
from naskd.spec.errors import InputError, one_line
from naskd.spec.paths import files_of
from naskd.spec.registry import nearest


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


def _read(spec: DataSpec, base: Path, key: str, images_name: str, labels_name: str) -> LabelledArrays:
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
    return labelled_arrays(
        images, labels, None if names is None else names.tolist(), place, (images_name, labels_name)
    )


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
