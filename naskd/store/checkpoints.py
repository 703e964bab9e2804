"""Checkpoints of running trainings: the newest one of each, in a folder or on any filesystem that Arrow knows."""

import logging
import os
import posixpath
import shutil
import uuid
from pathlib import Path
from typing import Any, Protocol

from naskd.spec.errors import DamagedError, InputError
from naskd.spec.packages import lacks
from naskd.spec.paths import url_problem
from naskd.store.files import discard, seal_of, unseal_bytes, write_whole

_LOG = logging.getLogger(__name__)

SUFFIX = ".ckpt"
_ARROW_SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")
_TORCH_ARCHIVE = b"PK\x03\x04"
"""How a file of ``torch.save`` begins."""


class Checkpoints(Protocol):
    """Where a training leaves its state, so that another process can go on with it."""

    def save(self, key: str, epoch: int, data: bytes | memoryview) -> None:
        """Keep the state after `epoch`; replaces an earlier epoch's, never a later one's."""

    def load(self, key: str) -> bytes | None:
        """The newest state; None when there is none."""

    def newest(self, key: str) -> int | None:
        """Epoch of the newest state, which is not read; None when there is none."""

    def settle(self) -> None:
        """Wait until all that was saved is kept, where saving does not wait.

        Raises:
            OSError: Something could not be kept.
        """

    def remove(self, key: str) -> None:
        """Forget a training, and what is kept below its key; a no-op when there is nothing."""


class CheckpointStore:
    """``<root>/<key>/<epoch>.ckpt``, each written whole or not at all, and with its hash. A key may have slashes.

    One that is damaged counts as not there, and is removed: the training begins with an earlier one, or anew.

    Args:
        root: A folder, or a URL that :mod:`pyarrow.fs` or :mod:`fsspec` opens, such as ``s3://bucket/prefix``.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._opened: Place | None = None

    def _place(self) -> "Place":
        """Where the root is; opened when first needed.

        Raises:
            InputError: The URL cannot be opened.
        """
        if self._opened is None:
            self._opened = open_place(self.root)
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
        except (OSError, NotImplementedError) as error:  # of filesystems that can only be read
            raise InputError(f"checkpoints cannot be kept at {self.root!r}: {error}") from None

    def save(self, key: str, epoch: int, data: bytes | memoryview) -> None:
        """See :class:`Checkpoints`.

        Raises:
            OSError: It cannot be written; what was kept before stays.
        """
        older = self._epochs(key)
        if older and max(older) >= epoch:
            return
        place = self._place()
        place.write(key, _name(epoch), seal_of(data), data)
        for past in older:
            place.delete(key, _name(past))

    def load(self, key: str) -> bytes | None:
        """See :class:`Checkpoints`."""
        for epoch in sorted(self._epochs(key), reverse=True):
            try:
                # Those of earlier versions had no hash.
                return unseal_bytes(self._place().read(key, _name(epoch)), unsealed_start=_TORCH_ARCHIVE)
            except DamagedError as error:
                _LOG.warning(
                    "the checkpoint after epoch %d in %s/%s is not used: %s", epoch, self.root, key, error
                )
                self._place().delete(key, _name(epoch))
        return None

    def newest(self, key: str) -> int | None:
        """See :class:`Checkpoints`."""
        return max(self._epochs(key), default=None)

    def settle(self) -> None:
        """See :class:`Checkpoints`; saving waits."""

    def remove(self, key: str) -> None:
        """See :class:`Checkpoints`."""
        self._place().delete_folder(key)

    def kept(self) -> list[str]:
        """Keys of all trainings of which something is kept."""
        return self._place().names("")

    def _epochs(self, key: str) -> list[int]:
        found = (name.removesuffix(SUFFIX) for name in self._place().names(key) if name.endswith(SUFFIX))
        return [int(epoch) for epoch in found if epoch.isdecimal()]


def _name(epoch: int) -> str:
    return f"{epoch:06d}{SUFFIX}"


class Place(Protocol):
    """Folders of files below a root, on a disk or elsewhere. A folder is made when something is written in it."""

    def names(self, folder: str) -> list[str]:
        """Of what is in a folder; none when it is not there."""

    def read(self, folder: str, name: str) -> bytes:
        """A file's content.

        Raises:
            DamagedError: It is no file.
        """

    def write(self, folder: str, name: str, *parts: bytes | memoryview) -> None:
        """Write a file, one part after the other, whole or not at all."""

    def delete(self, folder: str, name: str) -> None:
        """Remove a file."""

    def delete_folder(self, folder: str) -> None:
        """Remove a folder with its files; a no-op when it is not there."""


class Disk:
    """A folder of this machine: what is written is on the disk before it has its name.

    Args:
        root: Made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        """See :class:`Place`."""
        try:
            return os.listdir(self.root / folder)
        except FileNotFoundError:
            return []

    def read(self, folder: str, name: str) -> bytes:
        """See :class:`Place`."""
        path = self.root / folder / name
        try:
            return path.read_bytes()
        except IsADirectoryError:
            raise DamagedError(f"{path} is a folder") from None

    def write(self, folder: str, name: str, *parts: bytes | memoryview) -> None:
        """See :class:`Place`."""
        write_whole(self.root / folder / name, *parts)

    def delete(self, folder: str, name: str) -> None:
        """See :class:`Place`."""
        discard(self.root / folder / name)

    def delete_folder(self, folder: str) -> None:
        """See :class:`Place`."""
        shutil.rmtree(self.root / folder, ignore_errors=True)


class ArrowPlace:
    """On a filesystem of Arrow's.

    Args:
        filesystem: A :class:`pyarrow.fs.FileSystem`.
        root: Path on it.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self.filesystem = filesystem
        self.root = root

    def names(self, folder: str) -> list[str]:
        """See :class:`Place`."""
        from pyarrow.fs import FileSelector

        found = self.filesystem.get_file_info(FileSelector(self._path(folder), allow_not_found=True))
        return [info.base_name for info in found]

    def read(self, folder: str, name: str) -> bytes:
        """See :class:`Place`."""
        with self.filesystem.open_input_stream(self._path(folder, name)) as file:
            return bytes(file.read())

    def write(self, folder: str, name: str, *parts: bytes | memoryview) -> None:
        """See :class:`Place`."""
        self.filesystem.create_dir(self._path(folder), recursive=True)
        # Object stores write whole objects; elsewhere the move makes it so.
        partial = self._path(folder, f".{uuid.uuid4().hex}.partial")
        with self.filesystem.open_output_stream(partial) as stream:
            for part in parts:
                stream.write(part)
        self.filesystem.move(partial, self._path(folder, name))

    def delete(self, folder: str, name: str) -> None:
        """See :class:`Place`."""
        self.filesystem.delete_file(self._path(folder, name))

    def delete_folder(self, folder: str) -> None:
        """See :class:`Place`."""
        from pyarrow.fs import FileType

        if self.filesystem.get_file_info(self._path(folder)).type is FileType.Directory:
            self.filesystem.delete_dir(self._path(folder))

    def _path(self, *parts: str) -> str:
        return posixpath.join(self.root, *parts)


def open_place(root: str) -> Place:
    """Where a folder, or a URL, is.

    Raises:
        InputError: Neither Arrow nor fsspec knows the scheme, or it cannot be opened.
    """
    if "://" not in root:
        return Disk(Path(root).absolute())
    if problem := url_problem(root):
        raise InputError(f"{root!r} cannot be opened: {problem}")
    from pyarrow import ArrowException, fs

    try:
        filesystem, path = fs.FileSystem.from_uri(root)
    except (ArrowException, OSError, ValueError) as arrow:
        try:
            import fsspec

            found, path = fsspec.core.url_to_fs(root)
            filesystem = fs.PyFileSystem(fs.FSSpecHandler(found))
        except (ImportError, OSError, ValueError) as error:
            raise InputError(f"{root!r} cannot be opened: {arrow}; {error}") from None
    return Disk(Path(path)) if isinstance(filesystem, fs.LocalFileSystem) else ArrowPlace(filesystem, path)


def check_scheme(root: str) -> None:
    """See that something opens URLs of this kind; nobody is asked over a network.

    Raises:
        InputError: Neither Arrow nor fsspec knows the scheme, or a package is missing.
    """
    scheme, separator, _ = root.partition("://")
    if separator and (problem := lacks(f"execution.checkpoints = {root!r}", ["pyarrow"])):
        raise InputError(problem)
    if not separator or scheme in _ARROW_SCHEMES:
        return
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise InputError(f"execution.checkpoints = {root!r} cannot be opened: {error}") from None
