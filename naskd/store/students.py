"""Trained students of a search, one file each: so that taking one away needs no second training."""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from naskd.store.files import file_hash, write_whole

SUFFIX = ".safetensors"


class Students(Protocol):
    """Where a finished training leaves its student."""

    def keep(self, key: str, data: bytes) -> None:
        """Keep a student's file; replaces what was kept under the same key.

        Raises:
            OSError: It cannot be kept.
        """


class StudentStore:
    """``<root>/<key>.safetensors``, each written whole or not at all.

    Args:
        root: Made when something is kept.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, key: str) -> Path:
        """Of a student's file, whether it is there or not."""
        return self.root / f"{key}{SUFFIX}"

    def keep(self, key: str, data: bytes) -> None:
        """See :class:`Students`."""
        write_whole(self.path(key), data)

    def remove(self, key: str) -> None:
        """Forget a student; a no-op when it is not there."""
        self.path(key).unlink(missing_ok=True)

    def keep_only(self, keys: Collection[str]) -> None:
        """Remove all others. Only where nobody is writing."""
        wanted = {self.path(key) for key in keys}
        for path in self.root.glob(f"*{SUFFIX}"):
            if path not in wanted:
                path.unlink(missing_ok=True)

    def found(self, key: str, sha256: str) -> Path | None:
        """The file of a student as it was kept; None where it is not there, or is damaged.

        Args:
            key: Of its training.
            sha256: Of the file.
        """
        path = self.path(key)
        if not path.is_file() or file_hash(path) != sha256:
            return None
        return path
