"""Images in one folder a class, ``root/<class>/**/*.jpg``: the layout of torchvision's ``ImageFolder``.

Differs: every file is decoded once into memory, at a size that all share, instead of at every epoch; a file
that cannot be read is an error that names it.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from PIL import __version__ as pillow_version

from naskd.data.decoded_cache import decoded_once
from naskd.data.raw import DataReader, ImageArray, Shape, Source, channels_of, fit, fitted_shape, folder
from naskd.data.splits import IndexArray
from naskd.spec.datasets import DataSpec
from naskd.spec.design import content_id
from naskd.spec.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")

_CHUNK = 64
# Below this size Python's own work dominates and threads only fight for its lock: 50,000 CIFAR files took 5.7
# s with one thread and 7.6 s with two; from 128x128 on, two threads on two cores halve the time.
_THREADED_PIXELS = 100 * 100
_FORMAT = 1


class ImageFolder(DataReader):
    """Reads ``root``, and ``test_root`` where there is one."""

    def development(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        return _open(folder(base, spec.root), spec, cache)

    def test(self, spec: DataSpec, base: Path, cache: Path | None) -> Source:
        """See :class:`~naskd.data.raw.DataReader`."""
        return _open(folder(base, spec.test_root), spec, cache)


def _open(root: Path, spec: DataSpec, cache: Path | None) -> Source:
    """List the files of `root`; classes are its folders in the order of their names.

    Files and folders whose name starts with a dot, and files of other types, are ignored. No image is opened
    yet. Orientation tags of cameras are not applied, as in torchvision.

    Args:
        root: Folder of the class folders.
        spec: Its `resolution` and `channels` say what is read.
        cache: Folder for decoded images; None decodes at every call.

    Raises:
        InputError: `root` is missing, has fewer than two classes or an empty one.
    """
    if not root.is_dir():
        raise InputError(f"the image folder {str(root)!r} does not exist; expected {root}/<class>/*.jpg")
    class_names = tuple(sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")))
    if len(class_names) < 2:
        raise InputError(
            f"the image folder {str(root)!r} has {len(class_names)} class folders; at least 2 are needed"
        )
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted(_image_files(root / name))
        if not found:
            raise InputError(
                f"the class folder {str(root / name)!r} has no images ({', '.join(EXTENSIONS)}); "
                "add some or remove it"
            )
        paths += found
        labels += [label] * len(found)

    def shape_at(position: int) -> Shape:
        with _opened(paths[position]) as image:
            return fitted_shape(channels_of(image), image.height, image.width, spec)

    def read(index: IndexArray) -> ImageArray:
        chosen = [paths[position] for position in index]
        if cache is None:
            return _decode(chosen, spec)
        return decoded_once(cache, _cache_key(chosen, root, spec), lambda: _decode(chosen, spec))

    return Source(np.asarray(labels, np.int64), class_names, shape_at, read)


def _image_files(of_class: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(of_class, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield os.path.join(parent, name)


def _available_cores() -> int:
    """Cores that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """An open image; whatever Pillow raises while it is open becomes a ValueError that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    # All that came out of 20,000 randomly damaged files of seven kinds.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"the image {path!r} cannot be read ({error}); replace or remove it") from error


def _decode(paths: list[str], spec: DataSpec) -> ImageArray:
    """Decode all of `paths` into one array; all must have the shape of the first."""
    with _opened(paths[0]) as image:
        threads = _available_cores() if image.width * image.height >= _THREADED_PIXELS else 1
        image_shape = fitted_shape(channels_of(image), image.height, image.width, spec)
    images = np.empty((len(paths), *image_shape), np.uint8)

    def decode_chunk(start: int) -> None:
        for position in range(start, min(start + _CHUNK, len(paths))):
            with _opened(paths[position]) as image:
                if spec.resolution is not None:
                    # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, nine times as fast for a photo;
                    # twice the resolution is kept for the resizing, which then differs by a few grey levels
                    # at most.
                    image.draft(None, (2 * spec.resolution, 2 * spec.resolution))
                pixels = fit(image, spec.resolution, spec.channels)
            if pixels.shape != image_shape:
                raise _unequal(paths[position], pixels.shape, paths[0], image_shape)
            images[position] = pixels

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(decode_chunk, range(0, len(paths), _CHUNK)):
            pass
    return images


def _unequal(path: str, shape: tuple[int, ...], first: str, first_shape: tuple[int, ...]) -> ValueError:
    if shape[0] != first_shape[0]:
        return ValueError(
            f"{first!r} has {first_shape[0]} channels, {path!r} has {shape[0]}; set data.channels = 1 or 3"
        )
    return ValueError(
        f"{first!r} is {first_shape[2]}x{first_shape[1]} pixels, {path!r} is {shape[2]}x{shape[1]}; "
        "set data.resolution"
    )


def _cache_key(paths: list[str], root: Path, spec: DataSpec) -> str:
    """Names the decoded form of these files: names, sizes and times, how they are fitted, and by what."""
    files = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"the image {path!r} cannot be read ({error}); replace or remove it") from error
        files.append((os.path.relpath(path, root), status.st_size, status.st_mtime_ns))
    return content_id([_FORMAT, pillow_version, str(root.resolve()), spec.resolution, spec.channels, files])
