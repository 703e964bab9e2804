"""Which line of a user's files an error comes from, so that a message can name it."""

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import naskd

USER_MODULE = "naskd_user_"
"""How the names of modules begin that are a user's files, imported by their path."""

_OURS = Path(naskd.__file__).parent


def is_user_file(module: str) -> bool:
    """Whether a module of this name is a user's file."""
    return module.startswith(USER_MODULE)


def place_of(error: BaseException) -> str:
    """The innermost line of a user's file that an error passed through; "" where it passed through none.

    Returns:
        As ``my_loss.py:14, in forward``. Without folders: a reason is read on other machines, too.
    """
    found = ""
    folders = _folders()
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _is_users(frame, folders):
            code = frame.f_code
            inside = "" if code.co_name == "<module>" else f", in {code.co_name}"
            found = f"{Path(code.co_filename).name}:{line}{inside}"
    return found


def raised_by_user(error: BaseException) -> bool:
    """Whether a user's file called last, rather than naskd, before a library or Python raised."""
    last, folders = False, _folders()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if _is_users(frame, folders):
            last = True
        elif Path(frame.f_code.co_filename).is_relative_to(_OURS):
            last = False
    return last


def at(code: Any) -> str:
    """Where a class or function of a user's file is defined, as `` (my_loss.py:14)``; "" for any other code."""
    code = getattr(code, "func", code)  # of a partial
    if not is_user_file(str(getattr(code, "__module__", ""))):
        return ""
    try:
        file = Path(inspect.getfile(code)).name
        line = _line(code)
    except (OSError, TypeError):  # made by a call, or the file has gone
        return ""
    return f" ({file}:{line})"


def named(code: Any) -> str:
    """The name of a class or function, and where in a user's file it is defined."""
    return f"{getattr(code, '__qualname__', repr(code))}{at(code)}"


def _line(code: type | Callable[..., Any]) -> int:
    function = getattr(inspect.unwrap(code), "__code__", None)
    return inspect.getsourcelines(code)[1] if function is None else int(function.co_firstlineno)


def _folders() -> set[Path]:
    """Of the user's files: their neighbours, which they import by name, are the user's, too."""
    return set(_user_folders())


def _user_folders() -> Iterator[Path]:
    for name, module in list(sys.modules.items()):
        if is_user_file(name) and (file := getattr(module, "__file__", None)):
            yield Path(file).parent


def _is_users(frame: FrameType, folders: set[Path]) -> bool:
    if is_user_file(str(frame.f_globals.get("__name__", ""))):
        return True
    file = Path(frame.f_code.co_filename)
    if file.is_relative_to(_OURS) or "site-packages" in file.parts:
        return False
    return any(file.is_relative_to(folder) for folder in folders)
