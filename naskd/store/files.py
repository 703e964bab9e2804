"""Files that appear whole or not at all, and say when they are not what was written.

All that naskd stores is written here, or beside a lock of its own: into a file beside the target, through to the disk,
and then renamed. The name of such a file tells who writes it, so that what a killed process left is known and removed
at the next start, and what a living one writes is left alone.

Importing this module imports nothing heavy.
"""

import atexit
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from naskd.spec.errors import DamagedError
from naskd.spec.outputs import is_stream
from naskd.spec.processes import host_digits, start_time, writer_id

SEAL = "seal"
"""Key of a JSON record under which its hash stands."""

_MAGIC = b"naskd sealed bytes, SHA-256 follows\n"
_PARTIAL = re.compile(r"\.partial-(\d+)-(\w+)-([0-9a-f]{8})-")
_TEMPORARY = re.compile(r"naskd-(\d+)-(\w+)-([0-9a-f]{8})-")
_FOREIGN_SECONDS = 86400.0
"""A file of another host's process that nobody has touched for so long is a leftover."""

_LONGEST_NAME = 160
"""Bytes of the target's name that the name beside it keeps: file systems take 255 in all."""
_WITHIN_A_CHARACTER = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 with which no character begins."""


# --- writing ---------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside `path` to write; at the end it takes the place of `path`, in one step and on the disk.

    Where that fails, `path` stays as it was and nothing is left beside it. A link is followed. What is no file, such as
    a device or a pipe, stays what it is: it is written to at the end.

    Args:
        path: Its folder must be there. Of one that a user names, ask :func:`naskd.spec.outputs.writable` first.

    Raises:
        OSError: It cannot be written, as on a full disk; the error names `path`.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory(dir=process_folder()) as folder:
            part = Path(folder) / path.name
            yield part
            # Appended: what is behind a descriptor may be a file that holds something already.
            with open(part, "rb") as source, open(path, "ab") as sink:
                shutil.copyfileobj(source, sink)
        return
    target = Path(os.path.realpath(path))
    partial = beside(target)
    try:
        yield partial
        _sync(partial)
        os.replace(partial, target)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    sync_folder(target.parent)


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file; see :func:`replacing`. Its folder is made.

    Args:
        path: Replaced when it exists.
        parts: Of its content, one after the other.

    Raises:
        OSError: It cannot be written; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, open(partial, "wb") as file:
        for part in parts:
            file.write(part)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, removed at the end unless it was renamed. Its parent is made.

    Raises:
        OSError: Something in it cannot be written; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = beside(path)
    try:
        folder.mkdir()
        yield folder
    except OSError as error:
        if str(error.filename).startswith(str(folder)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the file system can do that."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def out_of_space(error: BaseException) -> bool:
    """Whether something could not be written because the disk, or a quota on it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# --- who writes ------------------------------------------------------------------------------------------------


def beside(path: Path) -> Path:
    """A name beside `path` that no other call gives, with its suffix, and with this process in it."""
    count, name = next(_counts()), os.fsencode(path.name)
    if len(name) > _LONGEST_NAME:
        name = name[-_LONGEST_NAME:].lstrip(_WITHIN_A_CHARACTER)
    return path.with_name(f".partial-{writer_id()}-{count}-{os.fsdecode(name)}")


def is_partial(path: Path) -> bool:
    """Whether a path is named as by :func:`beside`."""
    return path.name.startswith(".partial-")


def process_folder() -> Path:
    """A folder for temporary files of this process, in the system's: it is removed at the end of the process.

    Of a process that is killed, the next that begins removes it; see :func:`sweep`.
    """
    return _process_folder(os.getpid())


@cache
def _process_folder(pid: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"naskd-{writer_id()}-"))

    def remove() -> None:
        if os.getpid() == pid:  # a process that was forked from this one inherits what is done at the end
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@cache
def _counts() -> Iterator[int]:
    return iter(range(10**9))


def leftovers(*folders: Path) -> list[Path]:
    """What killed processes left half written in folders and all below them, and in the system's temporary folder."""
    found = [path for path in _temporary() if _is_left(path, _TEMPORARY)]
    for folder in folders:
        for parent, names, files in os.walk(folder):
            partial = [path for name in (*names, *files) if is_partial(path := Path(parent, name))]
            found += [path for path in partial if _is_left(path, _PARTIAL)]
            names[:] = [name for name in names if not name.startswith(".partial-")]
    return sorted(found)


def _temporary() -> list[Path]:
    try:
        return list(Path(tempfile.gettempdir()).glob("naskd-*"))
    except OSError:  # there is none, or it cannot be read
        return []


def _is_left(path: Path, pattern: re.Pattern[str]) -> bool:
    match = pattern.match(path.name)
    if match is None:
        return False
    pid, start, where = match.groups()
    if where == host_digits():
        return start_time(int(pid)) != start
    try:
        return time.time() - path.lstat().st_mtime > _FOREIGN_SECONDS
    except OSError:
        return False


def sweep(*folders: Path) -> None:
    """Remove :func:`leftovers`; what cannot be removed stays."""
    for path in leftovers(*folders):
        discard(path)


def discard(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


# --- noticing damage -------------------------------------------------------------------------------------------


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(record: Any) -> str:
    """SHA-256 of anything JSON can hold, however it is laid out."""
    plain = json.loads(json.dumps(record))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON object with its hash; see :func:`write_whole`.

    Raises:
        OSError: It cannot be written.
        TypeError: JSON cannot hold it.
    """
    write_whole(path, json.dumps({**record, SEAL: digest(record)}, indent=1).encode())


def read_sealed(path: Path, way_out: str = "") -> dict[str, Any]:
    """A JSON object that :func:`write_sealed` wrote, without its hash; one that has none is taken as it is.

    Args:
        path: Of the file.
        way_out: What to do about a damaged one, for the message.

    Raises:
        DamagedError: It is not what was written.
        OSError: It cannot be read.
    """
    problem = "its content is not what was written"
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        record, problem = None, str(error)
    if isinstance(record, dict):
        seal = record.pop(SEAL, None)
        if seal is None or seal == digest(record):
            return record
    raise DamagedError(f"{path} is damaged: {problem}" + (f"; {way_out}" if way_out else ""))


def is_sealed(path: Path) -> bool:
    """Whether a JSON file carries its hash; those of earlier versions do not."""
    return SEAL in json.loads(path.read_bytes())


def seal_of(data: bytes | memoryview) -> bytes:
    """What stands before bytes in a file, with their hash; see :func:`unseal_bytes`."""
    return _MAGIC + hashlib.sha256(data).digest()


def unseal_bytes(sealed: bytes, unsealed_start: bytes | None = None) -> bytes:
    """Bytes that have been written after their :func:`seal_of`.

    Args:
        sealed: Both.
        unsealed_start: How bytes begin that an earlier version wrote without a hash: they are taken as they are.

    Raises:
        DamagedError: They are not what was written.
    """
    if unsealed_start is not None and sealed.startswith(unsealed_start):
        return sealed
    start = len(_MAGIC) + hashlib.sha256().digest_size
    data = sealed[start:]
    if sealed[:start] != seal_of(data):
        raise DamagedError("its bytes are not those that were written")
    return data
