"""Files and folders that a user names for results: whether they can be written, found out before anything is made."""

import os
import stat
import tempfile
from pathlib import Path

from naskd.spec.errors import InputError
from naskd.spec.visible import visible_line


def writable(path: Path) -> Path:
    """Where a result that is to be at `path` is really written; costs nothing, so that it can be asked first.

    Returns:
        What a link points to; a device, or the pipe of a shell's ``>(...)``, as it is.

    Raises:
        InputError: `path` is a folder, a named pipe that would be waited for, or in no folder.
    """
    name = visible_line(str(path))
    try:
        # /dev/stdout and its like are links to what has no name: they are opened as they are.
        target = path if _is_descriptor(path) else Path(os.path.realpath(path))
    except ValueError as error:
        raise InputError(f"cannot write {name}: {error}") from None
    try:
        mode = os.stat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(target.parent):
            raise InputError(
                f"cannot write {name}: there is no folder {visible_line(str(target.parent))}"
            ) from None
        return target
    except OSError as error:
        raise InputError(f"cannot write {name}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"cannot write {name}: it is a folder; name a file in it")
    if stat.S_ISFIFO(mode) and not _is_descriptor(path):
        raise InputError(
            f"cannot write {name}: it is a named pipe, whose reader would be waited for; name a file"
        )
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        raise InputError(
            f"cannot write {name}: it is a {'socket' if stat.S_ISSOCK(mode) else 'disk'}; name a file"
        )
    return target


def usable_folder(path: Path) -> None:
    """See that files can be written into a folder, which need not be there yet. Nothing is left behind.

    Raises:
        InputError: It, or what it would be made in, is no folder or cannot be written.
    """
    there = Path(os.path.abspath(path))
    name = visible_line(str(path))
    while True:
        try:
            os.lstat(there)
            break
        except (FileNotFoundError, NotADirectoryError):
            there = there.parent
        except (OSError, ValueError) as error:
            raise InputError(f"cannot write to {name}: {getattr(error, 'strerror', None) or error}") from None
    if not os.path.isdir(there):
        raise InputError(f"cannot write to {name}: {visible_line(str(there))} is a file, and no folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to {name}: nothing can be written in {visible_line(str(there))}: {error.strerror}"
        ) from None


def is_stream(target: Path) -> bool:
    """Whether what is written there goes elsewhere than into a file of that name, so that nothing can replace it."""
    return _is_descriptor(target) or (os.path.exists(target) and not os.path.isfile(target))


def _is_descriptor(path: Path) -> bool:
    """Whether a path is that of an open file of this process, as ``/dev/stdout`` and ``/dev/fd/63``."""
    return os.path.abspath(path) in ("/dev/stdout", "/dev/stderr") or str(path).startswith(
        ("/dev/fd/", "/proc/self/fd/")
    )
