"""Objects of this process that a study names: what was given in Python where a study file names a file.

A study is plain text. A space, images or a teacher that were given as objects are held here for as long as the process
lives, and the study names them by their content. So only an equal object can ever stand for one, and a process that was
given none says so.
"""

import re
from typing import Any

from naskd.spec.errors import InputError

PATTERN = r"python:[A-Za-z_]\w*:[0-9a-f]{12}"
"""How a study names a function that it was given: its name, and its content."""

CONTENT = "[0-9a-f]{12}"

_HELD: dict[tuple[str, str], Any] = {}


def hold(what: str, content: str, thing: Any) -> None:
    """Hold an object.

    Args:
        what: ``space``, ``data`` or ``teacher``.
        content: Twelve hexadecimal digits of what it is.
        thing: The object. It must not be changed afterwards.
    """
    _HELD[what, content] = thing


def held(what: str, content: str) -> Any:
    """The object of this content.

    Raises:
        InputError: This process was given none.
    """
    try:
        return _HELD[what, content]
    except KeyError:
        raise InputError(
            f"the {what} of this study is a Python object of content {content}, which this process was not given: go "
            f"on in Python, with naskd.search or naskd.open_run(..., {what}=...) and an equal object"
        ) from None


def is_held(reference: str) -> bool:
    """Whether a study's reference to a function means one that was given."""
    return re.fullmatch(PATTERN, reference) is not None


def held_function(reference: str) -> Any:
    """The function that such a reference means.

    Raises:
        InputError: This process was not given it.
    """
    return held("space", reference.rpartition(":")[2])
