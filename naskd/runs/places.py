"""Whether something can be written at a place, found out before it is made."""

import os
import tempfile
from pathlib import Path

from naskd.spec.errors import InputError


def writable(folder: Path) -> None:
    """See whether files can be written into a folder, which need not be there yet. Nothing is left behind.

    Raises:
        InputError: They cannot; the message names what is in the way.
    """
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise InputError(f"{folder} cannot be a folder: {error.strerror}") from error
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{folder} cannot be a folder: {there} is a file")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"nothing can be written to {there}: {error.strerror}") from error


def writable_file(path: Path) -> None:
    """See whether a file can be written, and replaced if it is there.

    Raises:
        InputError: It cannot, or something else than a file is there; the message names it.
    """
    if os.path.lexists(path) and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"{path} cannot be written: it is {what}; give the name of a file")
    if path.is_symlink():
        raise InputError(f"{path} is a link, which would be replaced by a file; give the file itself")
    writable(path.parent)
