"""Decoded images on disk, so that the second run (and every worker of a run) need not decode them again."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from naskd.data.raw import ImageArray

_LOG = logging.getLogger(__name__)
_LEFT_OVER_SECONDS = 86400


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
        record = json.loads((folder / f"{key}.json").read_text())
        images: ImageArray = np.load(folder / f"{key}.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, OverflowError, SyntaxError, TypeError, KeyError):
        return None  # whatever damage makes of a header
    if not (isinstance(record, dict) and record.get("sha256") == _content_hash(images)):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / f"{key}.json")  # `naskd cache` removes what was not used for long
    return images


def store_decoded(folder: Path, key: str, images: ImageArray) -> None:
    """Store `images` under `key`; both files appear whole or not at all, and the hash last."""
    folder.mkdir(parents=True, exist_ok=True)
    _remove_left_over(folder)
    for suffix in (".npy", ".json"):
        handle, name = tempfile.mkstemp(prefix=f".{key}-", suffix=suffix, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                if suffix == ".npy":
                    np.save(file, images, allow_pickle=False)
                else:
                    file.write(json.dumps({"sha256": _content_hash(images), "shape": images.shape}).encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, folder / f"{key}{suffix}")
        except BaseException:
            os.unlink(name)
            raise


def _remove_left_over(folder: Path) -> None:
    """Files of processes that were killed while they wrote, a day ago or longer."""
    for pattern in (".*-*.npy", ".*-*.json"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _LEFT_OVER_SECONDS:
                    path.unlink()


def _content_hash(images: ImageArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
