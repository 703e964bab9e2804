"""What naskd raises on purpose. Anything else that leaves it is a mistake in naskd, and keeps its traceback."""

from collections.abc import Iterable


class NaskdError(Exception):
    """Something that the user can do something about; ``str(error)`` is the whole message."""


def one_line(error: BaseException) -> str:
    """What an error says, in its first line; what is said on purpose needs no name of a class before it."""
    said = str(error).splitlines() or ["no message"]
    return said[0] if isinstance(error, NaskdError) else f"{type(error).__name__}: {said[0]}"


class InputError(NaskdError, ValueError):
    """What was given is wrong: a study file, a space, images, a name. The command line ends with exit code 2.

    Args:
        problems: One line, or all that is wrong, a line each.
    """

    def __init__(self, problems: str | Iterable[object]) -> None:
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, problems)))


class UnknownNameError(InputError):
    """A name that nothing is registered under: a mistake wherever it stands, and never a design among others."""


class DamagedError(InputError):
    """A stored file is not what was written, and cannot be made again by itself; the message names it."""


class RunError(NaskdError, RuntimeError):
    """What was given is right, and something went wrong while it ran. The command line ends with exit code 1."""
