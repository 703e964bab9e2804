"""Decoded images on disk, so that the second run (and every worker of a run) need not decode them again.

Images that are many are decoded into a mapped file and stay there: the system reads what is asked for, and drops it
again where memory is short. So they need no room in memory, and workers share what is read.
"""

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from naskd.spec.errors import InputError
from naskd.store.files import read_sealed, replacing, write_sealed, write_whole

_LOG = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]

MAPPED_BYTES = 2**30
"""Images of so many bytes or more stay on disk."""

_CHUNK = 2**24


def decoded_once(
    folder: Path | None, key: str, shape: tuple[int, ...], fill: Callable[[Bytes], None]
) -> Bytes:
    """The images stored under `key`, or what `fill` makes, stored for the next time.

    Where few cannot be stored (no permission, a full disk), they are decoded each time.

    Args:
        folder: None stores nothing, so that all are held in memory.
        key: Says all that the images depend on.
        shape: Of all of them, ``(N, ...)``.
        fill: Writes them into an array of that shape.

    Returns:
        Of that shape; from :data:`MAPPED_BYTES` on mapped from the file, and not to be written to.

    Raises:
        InputError: So many that they stay on disk, and they cannot be written there.
    """
    if folder is None:
        return _filled(shape, fill)
    images = load_decoded(folder, key)
    if images is not None and images.shape == shape:
        return images
    if _bytes(shape) >= MAPPED_BYTES:
        return _decoded_on_disk(folder, key, shape, fill)
    images = _filled(shape, fill)
    try:
        store_decoded(folder, key, images)
    except OSError as error:
        _LOG.warning("decoded images are not kept: %s", error)
    return images


def load_decoded(folder: Path, key: str) -> Bytes | None:
    """The images stored under `key`, or None when there are none or they are not what was stored."""
    path = folder / f"{key}.npy"
    try:
        record = read_sealed(folder / f"{key}.json")
        images: Bytes = np.load(path, mmap_mode="r", allow_pickle=False)
        with open(path, "rb") as file:
            file.seek(images.offset)  # type: ignore[attr-defined]  # of a mapped array
            if images.nbytes < MAPPED_BYTES:
                images = np.frombuffer(bytearray(file.read()), images.dtype).reshape(images.shape)
                content = hashlib.sha256(images.data)
            else:
                content = hashlib.sha256()
                while chunk := file.read(_CHUNK):
                    content.update(chunk)
        if record != _description(images, content.hexdigest()):
            return None
    except Exception:  # whatever numpy raises at a damaged header, memory for an absurd shape among it
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / f"{key}.json")  # `naskd cache` removes what was not used for long
    return images


def store_decoded(folder: Path, key: str, images: Bytes) -> None:
    """Store `images` under `key`; both files appear whole or not at all, and the hash last."""
    images = np.ascontiguousarray(images)
    write_whole(folder / f"{key}.npy", _header(images), images.data)
    write_sealed(folder / f"{key}.json", _description(images, hashlib.sha256(images.data).hexdigest()))


def _filled(shape: tuple[int, ...], fill: Callable[[Bytes], None]) -> Bytes:
    images = np.empty(shape, np.uint8)
    fill(images)
    return images


def _decoded_on_disk(folder: Path, key: str, shape: tuple[int, ...], fill: Callable[[Bytes], None]) -> Bytes:
    path = folder / f"{key}.npy"
    header = _header(np.broadcast_to(np.uint8(0), shape))
    _LOG.info("decoding %d images into %s, %.1f GB", shape[0], path, _bytes(shape) / 1e9)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            with open(partial, "wb") as file:
                file.write(header)
                _reserve(file.fileno(), len(header), _bytes(shape))
            made = np.memmap(partial, np.uint8, "r+", len(header), shape)
            fill(made)
            made.flush()
            del made
        # What was decoded is read again, so that its hash is that of the file.
        images: Bytes = np.load(path, mmap_mode="r", allow_pickle=False)
        content = hashlib.sha256()
        with open(path, "rb") as file:
            file.seek(len(header))
            while chunk := file.read(_CHUNK):
                content.update(chunk)
        write_sealed(folder / f"{key}.json", _description(images, content.hexdigest()))
    except OSError as error:
        raise InputError(
            f"{shape[0]} decoded images need {_bytes(shape)} bytes in {str(folder)!r}, which cannot be written "
            f"({error.strerror or error}); make room there, or set a smaller data.resolution or data.max_train"
        ) from error
    return images


def _reserve(file: int, start: int, size: int) -> None:
    """Take the room on the disk now: a mapped file that finds none later ends the process.

    Raises:
        OSError: There is none.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, size)
    else:
        os.truncate(file, start + size)


def _bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _header(images: Bytes) -> bytes:
    """As `np.save` writes it, which says of a full disk neither that it is full nor which file it was."""
    header = io.BytesIO()
    plain = {"descr": images.dtype.str, "fortran_order": False, "shape": images.shape}
    np.lib.format.write_array_header_1_0(header, plain)
    return header.getvalue()


def _description(images: Bytes, content: str) -> dict[str, object]:
    """What the file beside an array says of it; a shape that is read wrongly leaves the bytes as they are."""
    return {"sha256": content, "shape": list(images.shape), "dtype": images.dtype.str}
