"""What naskd raises on purpose. Anything else that leaves it is a mistake in naskd, and keeps its traceback."""

import traceback
from collections.abc import Iterable

from naskd.spec.secrets import redacted


class NaskdError(Exception):
    """Something that the user can do something about; ``str(error)`` is the whole message, without passwords."""

    def __init__(self, message: object) -> None:
        super().__init__(redacted(str(message)))


USERS: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""What code of a user's may raise. One that leaves the process has failed, whatever exit code it wants."""


def one_line(error: BaseException) -> str:
    """What an error says, in its first line; what is said on purpose needs no name of a class before it."""
    said = redacted(str(error)).splitlines() or ["no message"]
    return said[0] if isinstance(error, NaskdError) else f"{type(error).__name__}: {said[0]}"


class InputError(NaskdError, ValueError):
    """What was given is wrong: a study file, a space, images, a name. The command line ends with exit code 2.

    Args:
        problems: One line, or all that is wrong, a line each.
    """

    def __init__(self, problems: str | Iterable[object]) -> None:
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, problems)))


class UnknownNameError(InputError):
    """A name that nobody knows: a mistake wherever it stands, and never a design among others."""


class DamagedError(InputError):
    """A stored file is not what was written, and cannot be made again by itself; the message names it."""


class RunError(NaskdError, RuntimeError):
    """What was given is right, and something went wrong while it ran. The command line ends with exit code 1."""


def left(error: SystemExit) -> RunError:
    """What is said where code of a user's has left the process, and nobody could say which part of the study it was."""
    where = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" ({frame.filename}:{frame.lineno})" for frame in where)
    return RunError(f"code that the study names has left the process: {one_line(error)}{place}")
