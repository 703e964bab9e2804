"""Decoded images on disk, so that the second run (and every worker of a run) need not decode them again."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from naskd.data.raw import ImageArray


def load_decoded(folder: Path, key: str) -> ImageArray | None:
    """The images stored under `key`, or None when there are none or they are not what was stored."""
    try:
        record = json.loads((folder / f"{key}.json").read_text())
        images: ImageArray = np.load(folder / f"{key}.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not (isinstance(record, dict) and record.get("sha256") == _content_hash(images)):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / f"{key}.json")  # `naskd cache` removes what was not used for long
    return images


def store_decoded(folder: Path, key: str, images: ImageArray) -> None:
    """Store `images` under `key`; both files appear whole or not at all, and the hash last."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".npy", ".json"):
        handle, name = tempfile.mkstemp(prefix=f".{key}-", suffix=suffix, dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                if suffix == ".npy":
                    np.save(file, images, allow_pickle=False)
                else:
                    file.write(json.dumps({"sha256": _content_hash(images), "shape": images.shape}).encode())
            os.replace(name, folder / f"{key}{suffix}")
        except BaseException:
            os.unlink(name)
            raise


def _content_hash(images: ImageArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
