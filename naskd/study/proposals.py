"""From a search space to a design: what is turned away, and what is a mistake that ends everything.

A design that cannot be trained is one among others. A name that nobody knows is a mistake, and so is a space that
raises something else than ``ValueError`` or ``TrialPruned``: half of the space would never be tried, and nobody told.
"""

import ast
import inspect
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from pydantic import ValidationError

from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError, MistakeError, UnknownNameError, message
from naskd.spec.mistakes import unknown_name, where
from naskd.spec.study import StudySpec
from naskd.study.admission import settle
from naskd.study.samplers import raise_of_sampler
from naskd.study.space import Space


class TurnedAwayError(Exception):
    """A proposal is no design of this study; ``str(error)`` is the reason."""


def design_of(space: Space, trial: optuna.Trial, spec: StudySpec) -> TrialConfig:
    """The settled design that a space gives for the values of a trial.

    Raises:
        TurnedAwayError: These values make no design.
        InputError: The space is broken, or a name is unknown.
    """
    try:
        with warnings.catch_warnings():
            # A given value out of range only warns; who gave it looks at that.
            warnings.simplefilter("ignore")
            proposed = space(trial)
        if isinstance(proposed, TrialConfig):
            return settle(proposed, spec)
    except optuna.TrialPruned as pruned:
        raise TurnedAwayError(f"pruned by the space: {pruned}") from None
    except (UpdateFinishedTrialError, StorageInternalError):
        raise
    except ValueError as error:
        raise_of_sampler(error, spec.sampler.name)
        _raise_mistake(error, spec)
        raise TurnedAwayError(f"invalid: {told(error)}") from error
    except SystemExit as error:
        raise_of_sampler(error, spec.sampler.name)
        raise InputError(
            f"the search space {spec.space} called sys.exit({error.code!r}){_place(space, error)}; "
            "it must return a TrialConfig"
        ) from error
    except Exception as error:  # a user's space may raise anything; the answer names it
        raise_of_sampler(error, spec.sampler.name)
        raise InputError(
            f"the search space {spec.space} raised {message(error)}{_place(space, error)}"
        ) from error
    raise InputError(
        f"the search space {spec.space} returned {type(proposed).__name__}; it must return a TrialConfig"
    )


def told(error: ValueError) -> str:
    """What a refusal says, in one line; the name of its class where it says nothing."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{error.title}: {where(first, error.title)}: {first['msg']}"
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def refusals(spec: StudySpec) -> Iterator[None]:
    """Within, a ``ValueError`` turns a settled design away.

    Raises:
        TurnedAwayError: One was raised.
        MistakeError: It is one for any design, as about a name that nobody knows.
    """
    try:
        yield
    except ValueError as error:
        _raise_mistake(error, spec)
        raise TurnedAwayError(f"invalid: {told(error)}") from error


def _raise_mistake(error: ValueError, spec: StudySpec) -> None:
    """Raise a :class:`MistakeError` if a refusal is one, as about a name that nobody knows; otherwise return."""
    if isinstance(error, MistakeError) and not isinstance(error, UnknownNameError):
        raise error
    what = str(error) if isinstance(error, UnknownNameError) else unknown_name(error)
    if what:
        raise UnknownNameError(
            f"the search space {spec.space} names what is not there: {what}{_written(what, spec)}"
        ) from error


def _written(what: str, spec: StudySpec) -> str:
    """In which lines of the space's file the first name that is quoted in a message stands; empty where in none."""
    quoted = re.search(r"'([^']*)'", what)
    path = spec.resolve(spec.space.rpartition(":")[0])
    if quoted is None:
        return ""
    word = quoted[1]
    try:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    except (OSError, SyntaxError, ValueError):
        return ""
    lines = {
        node.lineno
        for node in nodes
        if (isinstance(node, ast.Constant) and node.value == word)
        or (isinstance(node, ast.keyword) and node.arg == word)
    }
    if not lines:
        return ""
    at = f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, sorted(lines)))}"
    return f" ({path.name}, {at})"


def _place(space: Space, error: BaseException) -> str:
    """In which line of the file of the space something was raised, where that is known."""
    file = getattr(getattr(inspect.unwrap(space), "__code__", None), "co_filename", None)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f" in line {lines[-1]}" if lines else ""
