"""Files that should be images: opened without harm, named by their content, and what their headers say.

Whatever is wrong with a file becomes one line that names it, with control characters escaped.
"""

import errno
import hashlib
import json
import logging
import os
import stat
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 (two that register)
from PIL import __version__ as pillow_version

from naskd.data.decoded_cache import load_decoded, store_decoded
from naskd.data.raw import channels_of
from naskd.spec.cpus import available_cpus
from naskd.spec.design import content_id
from naskd.spec.errors import InputError

_LOG = logging.getLogger(__name__)

# Pillow looks at the content and not at the suffix, and knows formats that start other programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# All that came out of 20,000 randomly damaged files of seven kinds, and what Pillow's readers may raise beside.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, NotImplementedError,
    struct.error, zlib.error, MemoryError, Image.DecompressionBombError,
)  # fmt: skip
_MEMO_FORMAT = 1
_THREADED_BYTES = 2**16
SETTLED_NS = 2 * 10**9
"""A file that changed less than this ago may change again within one tick of its file system's clock."""

MAX_FILE_BYTES = 2**31
"""A file may say that it is larger than the disk."""

SIXTEEN_BITS = "16 bits"
TRANSPARENT = "transparent"
SEVERAL_FRAMES = "frames"


class FileFacts(NamedTuple):
    """What is known of a file without its pixels.

    Args:
        sha256: Of its bytes; empty where they cannot be read.
        width: In pixels; 0 where the header cannot be read.
        height: Likewise.
        channels: 1 for a gray image, 3 for any other; 0 likewise.
        notes: What of it is not kept: :data:`SIXTEEN_BITS`, :data:`TRANSPARENT`, :data:`SEVERAL_FRAMES`.
        problem: Why it cannot be read, a whole line; or empty.
    """

    sha256: str
    width: int = 0
    height: int = 0
    channels: int = 0
    notes: tuple[str, ...] = ()
    problem: str = ""


Opened = BufferedReader | BytesIO
"""Bytes of an image, to be read from any place."""


class EncodedImage(Protocol):
    """An image as it rests on the disk: a file, or a part of one."""

    @property
    def name(self) -> str:
        """Path of the file; of a part, with the part's name after it, as if the file were a folder."""

    @property
    def file(self) -> str:
        """Path of the file that holds it: while that is unchanged, so is the image."""

    @property
    def n_bytes(self) -> int:
        """About how many there are, to choose how to read; 0 where nobody knows."""

    def opened(self) -> AbstractContextManager[Opened]:
        """Its bytes.

        Raises:
            InputError: It cannot be opened; whatever is raised while it is open becomes one too.
        """


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that is a file of its own."""

    name: str

    @property
    def file(self) -> str:
        """See :class:`EncodedImage`."""
        return self.name

    @property
    def n_bytes(self) -> int:
        """See :class:`EncodedImage`."""
        try:
            return os.path.getsize(self.name)
        except OSError:
            return 0

    def opened(self) -> AbstractContextManager[Opened]:
        """See :class:`EncodedImage`."""
        return opened_file(self.name)


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image that is a part of a file of many.

    Args:
        file: Path of that file.
        part: Name of the image in it.
        n_bytes: See :class:`EncodedImage`.
        read: Its bytes.
    """

    file: str
    part: str
    n_bytes: int
    read: Callable[[], bytes]

    @property
    def name(self) -> str:
        """See :class:`EncodedImage`."""
        return f"{self.file}/{self.part}"

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """See :class:`EncodedImage`."""
        content = b""
        try:
            content = self.read()
            yield BytesIO(content)
        except _DAMAGE as error:
            raise _unreadable(self.name, error, lambda: content[:16]) from error


@contextmanager
def opened_file(path: str) -> Iterator[Opened]:
    """A regular file. A pipe or a device, which may never end, is refused without waiting for it.

    Raises:
        InputError: It cannot be opened; whatever is raised while it is open becomes one too.
    """
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError("it is no regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise InputError(f"{status.st_size} bytes; at most {MAX_FILE_BYTES} are read")
            yield file
    except _DAMAGE as error:
        raise _unreadable(path, error, lambda: _head(path)) from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """Pillow warns of damaged tags, without the file's name; what matters of a file is told by its error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def image_in(file: Opened) -> Iterator[Image.Image]:
    """The image in an open file; only its header is read yet."""
    file.seek(0)
    with Image.open(file, formats=_FORMATS) as image:
        yield image


def file_hash(file: Opened) -> str:
    """SHA-256 of a whole open file."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _unreadable(name: str, error: BaseException, head: Callable[[], bytes]) -> InputError:
    return InputError(f"the image {name!r} cannot be read ({_reason(error, head)}); replace or remove it")


def _reason(error: BaseException, head: Callable[[], bytes]) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _what_it_is(head())
    if isinstance(error, OSError) and error.errno is not None:
        loop = "a link to itself" if error.errno == errno.ELOOP else ""
        return loop or error.strerror or str(error)
    text = str(error) or type(error).__name__
    return text if text.isprintable() else repr(text)


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(16)


def _what_it_is(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head.lstrip()[:1] == b"<":
        return "it holds a web page or other text, no image"
    if head[4:8] == b"ftyp":
        return f"it holds {head[8:12].decode('ascii', 'replace').strip()!r}, a format that is not read"
    return "it holds no image of a known format"


def _facts(encoded: EncodedImage) -> tuple[tuple[int, ...] | None, FileFacts]:
    """Facts of an image, and what `stat` said of its file before and after; None where that differs."""
    digest = ""
    before = _stated(encoded.file)
    try:
        with encoded.opened() as file:
            digest = file_hash(file)
            with image_in(file) as image:
                found = FileFacts(digest, image.width, image.height, channels_of(image), _notes(image))
    except InputError as error:
        found = FileFacts(digest, problem=str(error))
    return (before if digest and _stated(encoded.file) == before else None), found


def _stated(path: str) -> tuple[int, ...] | None:
    try:
        return signature(os.stat(path))
    except OSError:
        return None


def _notes(image: Image.Image) -> tuple[str, ...]:
    raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
    there = {
        SIXTEEN_BITS: image.mode.startswith("I;16")
        # A bitmap of 16 bits has 5 or 6 of each colour.
        or (image.format != "BMP" and any(";16" in mode for mode in raw)),
        TRANSPARENT: image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info,
        # The further frames of a camera's JPEG are previews of the first.
        SEVERAL_FRAMES: image.format not in ("JPEG", "MPO") and getattr(image, "is_animated", False),
    }
    return tuple(note for note, is_so in there.items() if is_so)


def signature(status: os.stat_result) -> tuple[int, ...]:
    """Size, times and number of a file. Nobody but the system's clock sets the second time."""
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class FactsMemo:
    """Facts of the files of a folder, remembered so that the next start need not read all of them again.

    They are believed as long as size, times and number of a file are the same. The time of the last change of
    an inode cannot be set by whoever restores a file's own times, so a file that was replaced is read again.

    Args:
        folder: Where to keep them; None forgets them.
        root: Whose files.
    """

    def __init__(self, folder: Path | None, root: Path) -> None:
        self._folder = folder if os.name == "posix" else None  # elsewhere that time is the creation's
        self._root = root
        self._key = content_id(["files", _MEMO_FORMAT, pillow_version, str(root.resolve())])
        self._known: dict[str, list[Any]] | None = None

    def facts(self, images: Sequence[EncodedImage]) -> list[FileFacts]:
        """Of each image, in that order."""
        known = self._load()
        names = [os.path.relpath(image.name, self._root) for image in images]
        stated = cache(_stated)  # of a file of many images once
        found = [
            self._remembered(known.get(name), stated(image.file) if name in known else None)
            for name, image in zip(names, images, strict=True)
        ]
        missing = [position for position, facts in enumerate(found) if facts is None]
        changed = False
        # Below some size Python's own work dominates, and threads only fight for its lock.
        large = bool(missing) and images[missing[0]].n_bytes >= _THREADED_BYTES
        with without_warnings(), ThreadPoolExecutor(available_cpus() if large else 1) as pool:
            made = pool.map(_facts, [images[position] for position in missing])
            for position, (before, facts) in zip(missing, made, strict=True):
                found[position] = facts
                if before is not None and _believable(before):
                    known[names[position]] = [list(before), *facts]
                    changed = True
        if changed:
            self._store(known)
        return [facts for facts in found if facts is not None]

    @staticmethod
    def _remembered(record: list[Any] | None, now: tuple[int, ...] | None) -> FileFacts | None:
        if record is None or now is None:
            return None
        stated, digest, width, height, channels, notes, problem = record
        return (
            FileFacts(digest, width, height, channels, tuple(notes), problem) if list(now) == stated else None
        )

    def _load(self) -> dict[str, list[Any]]:
        if self._known is None:
            self._known = {}
            kept = None if self._folder is None else load_decoded(self._folder, self._key)
            if kept is not None:
                self._known = dict(json.loads(kept.tobytes()))
        return self._known

    def _store(self, known: dict[str, list[Any]]) -> None:
        if self._folder is None:
            return
        try:
            store_decoded(self._folder, self._key, np.frombuffer(json.dumps(known).encode(), np.uint8))
        except OSError as error:
            _LOG.warning("what is known of the image files is not kept: %s", error)


def _believable(stated: Sequence[int]) -> bool:
    """Whether the time of the last change is a clock's own.

    Systems that have none put a file's own time there, in whole seconds; and a file may change twice within a tick.
    """
    changed = stated[2]
    return changed % 10**9 != 0 and changed + SETTLED_NS < time.time_ns()
