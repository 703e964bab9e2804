"""Checkpoints of running trainings: the newest one of each, in a folder or on any filesystem that Arrow knows."""

import posixpath
import uuid
from pathlib import Path
from typing import Any, Protocol

from naskd.spec.errors import InputError

SUFFIX = ".ckpt"


class Checkpoints(Protocol):
    """Where a training leaves its state, so that another process can go on with it."""

    def save(self, key: str, epoch: int, data: bytes) -> None:
        """Keep the state after `epoch`; replaces an earlier epoch's, never a later one's."""

    def load(self, key: str) -> bytes | None:
        """The newest state; None when there is none."""

    def remove(self, key: str) -> None:
        """Forget a training; a no-op when nothing is kept of it."""


class CheckpointStore:
    """``<root>/<key>/<epoch>.ckpt``, each written whole or not at all.

    Args:
        root: A folder, or a URL that :mod:`pyarrow.fs` or :mod:`fsspec` opens, such as ``s3://bucket/prefix``.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._opened: tuple[Any, str] | None = None

    def _filesystem(self) -> tuple[Any, str]:
        """The filesystem and the path of the root on it; opened when first needed.

        Raises:
            InputError: The URL cannot be opened.
        """
        if self._opened is None:
            self._opened = open_filesystem(self.root)
        return self._opened

    def check(self) -> None:
        """Write something and take it away again.

        Raises:
            InputError: Nothing can be kept there; the message says why.
        """
        probe = f"probe-{uuid.uuid4().hex}"
        try:
            self.save(probe, 0, b"")
            self.remove(probe)
        except OSError as error:
            raise InputError(f"checkpoints cannot be kept at {self.root!r}: {error}") from None

    def save(self, key: str, epoch: int, data: bytes) -> None:
        """See :class:`Checkpoints`."""
        filesystem, _ = self._filesystem()
        older = self._epochs(key)
        if older and max(older) >= epoch:
            return
        folder = self._folder(key)
        filesystem.create_dir(folder, recursive=True)
        # Object stores write whole objects; on a disk the move makes it so.
        partial = posixpath.join(folder, f".{uuid.uuid4().hex}.partial")
        with filesystem.open_output_stream(partial) as stream:
            stream.write(data)
        filesystem.move(partial, posixpath.join(folder, f"{epoch:06d}{SUFFIX}"))
        for past in older:
            filesystem.delete_file(posixpath.join(folder, f"{past:06d}{SUFFIX}"))

    def load(self, key: str) -> bytes | None:
        """See :class:`Checkpoints`."""
        epochs = self._epochs(key)
        if not epochs:
            return None
        filesystem, _ = self._filesystem()
        with filesystem.open_input_stream(
            posixpath.join(self._folder(key), f"{max(epochs):06d}{SUFFIX}")
        ) as f:
            return bytes(f.read())

    def remove(self, key: str) -> None:
        """See :class:`Checkpoints`."""
        from pyarrow.fs import FileType

        filesystem, _ = self._filesystem()
        if filesystem.get_file_info(self._folder(key)).type is FileType.Directory:
            filesystem.delete_dir(self._folder(key))

    def _folder(self, key: str) -> str:
        return posixpath.join(self._filesystem()[1], key)

    def _epochs(self, key: str) -> list[int]:
        from pyarrow.fs import FileSelector

        filesystem, _ = self._filesystem()
        found = filesystem.get_file_info(FileSelector(self._folder(key), allow_not_found=True))
        names = [info.base_name for info in found]
        return [int(name.removesuffix(SUFFIX)) for name in names if name.endswith(SUFFIX)]


def open_filesystem(root: str) -> tuple[Any, str]:
    """An Arrow filesystem and the path of `root` on it.

    Raises:
        InputError: Neither Arrow nor fsspec knows the scheme, or it cannot be opened.
    """
    from pyarrow import ArrowException, fs

    if "://" not in root:
        return fs.LocalFileSystem(), str(Path(root).absolute())
    if not root.partition("://")[2]:
        raise InputError(f"{root!r} cannot be opened: it names no folder")
    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(root)
        return found
    except (ArrowException, OSError, ValueError) as arrow:
        try:
            import fsspec

            filesystem, path = fsspec.core.url_to_fs(root)
        except (ImportError, OSError, ValueError) as error:
            raise InputError(f"{root!r} cannot be opened: {arrow}; {error}") from None
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path
