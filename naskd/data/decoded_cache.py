"""Decoded images on disk, so that the second run (and every worker of a run) need not decode them again."""

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from naskd.data.raw import ImageArray
from naskd.store.files import read_sealed, write_sealed, write_whole

_LOG = logging.getLogger(__name__)


def decoded_once(folder: Path | None, key: str, decode: Callable[[], ImageArray]) -> ImageArray:
    """The images stored under `key`, or what `decode` makes, stored for the next time.

    Where nothing can be stored (no permission, a full disk), they are decoded each time.

    Args:
        folder: None stores nothing.
        key: Says all that the images depend on.
        decode: Makes them.
    """
    if folder is None:
        return decode()
    images = load_decoded(folder, key)
    if images is None:
        images = decode()
        try:
            store_decoded(folder, key, images)
        except OSError as error:
            _LOG.warning("decoded images are not kept: %s", error)
    return images


def load_decoded(folder: Path, key: str) -> ImageArray | None:
    """The images stored under `key`, or None when there are none or they are not what was stored."""
    try:
        record = read_sealed(folder / f"{key}.json")
        images: ImageArray = np.load(folder / f"{key}.npy", allow_pickle=False)
        if record != _description(images):
            return None
    except Exception:  # whatever numpy raises at a damaged header, memory for an absurd shape among it
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / f"{key}.json")  # `naskd cache` removes what was not used for long
    return images


def store_decoded(folder: Path, key: str, images: ImageArray) -> None:
    """Store `images` under `key`; both files appear whole or not at all, and the hash last."""
    images = np.ascontiguousarray(images)
    header = io.BytesIO()
    # As `np.save` does, which says of a full disk neither that it is full nor which file it was.
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(images))
    write_whole(folder / f"{key}.npy", header.getvalue(), images.data)
    write_sealed(folder / f"{key}.json", _description(images))


def _description(images: ImageArray) -> dict[str, object]:
    """What the file beside an array says of it; a shape that is read wrongly leaves the bytes as they are."""
    content = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    return {"sha256": content, "shape": list(images.shape), "dtype": images.dtype.str}
