"""What naskd raises on purpose. Anything else that leaves it is a mistake in naskd, and keeps its traceback."""

import sys
import traceback
from collections.abc import Iterable
from typing import Any

from naskd.spec.places import at, place_of
from naskd.spec.secrets import redacted
from naskd.spec.visible import visible_line


class NaskdError(Exception):
    """Something that the user can do something about; ``str(error)`` is the whole message, without passwords."""

    def __init__(self, message: object) -> None:
        super().__init__(redacted(str(message)))


USERS: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""What code of a user's may raise. One that leaves the process has failed, whatever exit code it wants."""


def one_line(error: BaseException, code: Any = None) -> str:
    """What an error says, in its first line, and where in a user's files it comes from.

    Args:
        error: What is said on purpose is said as it is.
        code: A class or function that may be a user's: its place is said of an error that passed through no line of it.
    """
    if isinstance(error, NaskdError):
        return message(error)
    place = place_of(error)
    return message(error) + (f" ({place})" if place else at(code))


def message(error: BaseException) -> str:
    """What an error says, in its first line; what is said on purpose needs no name of a class before it.

    Of arguments that pydantic refused, the first line names none: the mistake itself is said instead.
    """
    # Help, and a look at a run, need no pydantic: who raises its error has imported it.
    if (pydantic := sys.modules.get("pydantic")) and isinstance(error, pydantic.ValidationError):
        from naskd.spec.mistakes import first_mistake  # which needs this module

        return visible_line(redacted(first_mistake(error)))
    said = redacted(str(error)).splitlines() or ["no message"]
    if isinstance(error, NaskdError):
        return said[0]
    hint = ""
    if isinstance(error, TypeError) and "unexpected keyword argument" in said[0]:
        from naskd.spec.mistakes import meant_keyword

        hint = meant_keyword(error)
    return f"{type(error).__name__}: {said[0]}{hint}"


def undefined(owner: object, method: str) -> NotImplementedError:
    """What a method raises that each class of its kind has to define, and that of `owner` does not."""
    return NotImplementedError(f"{type(owner).__name__} does not define {method}")


class InputError(NaskdError, ValueError):
    """What was given is wrong: a study file, a space, images, a name. The command line ends with exit code 2.

    Args:
        problems: One line, or all that is wrong, a line each.
    """

    def __init__(self, problems: str | Iterable[object]) -> None:
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, problems)))


class MistakeError(InputError):
    """A mistake wherever it stands, and never a design among others, as a user's block that raises."""


class UnknownNameError(MistakeError):
    """A name that nobody knows."""


class DamagedError(InputError):
    """A stored file is not what was written, and cannot be made again by itself; the message names it."""


class RunError(NaskdError, RuntimeError):
    """What was given is right, and something went wrong while it ran. The command line ends with exit code 1."""


def left(error: SystemExit) -> RunError:
    """What is said where code of a user's has left the process, and nobody could say which part of the study it was."""
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" ({frame.filename}:{frame.lineno})" for frame in where)
    return RunError(f"code that the study names has left the process: {message(error)}{place}")


def raised(error: Exception) -> RunError:
    """What is said where code of a user's has raised, and nobody could say which part of the study it was."""
    return RunError(f"code that the study names raised {one_line(error)}")
