"""What must hold of any command, whatever it was given: judged on its exit code, its words and its time."""

import logging
import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import sklearn.datasets  # noqa: F401 - as the next
from typer.testing import CliRunner, Result

import naskd.runs.run  # noqa: F401 - what commands import is there before memory is counted
from naskd.cli import app

SECONDS = 30
"""A command that takes longer hangs: all of them take less than one second."""
MEMORY = 3 * 2**30
"""Bytes of address space that a command may take beyond what is there."""
CODES = (0, 1, 2)


class HangError(BaseException):
    """A command did not come back."""


@contextmanager
def heard() -> Iterator[None]:
    """Warnings of a log are words on standard error, as they are where pytest does not catch them."""
    last = logging.lastResort
    assert last is not None
    logging.getLogger().addHandler(last)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(last)


@contextmanager
def limited() -> Iterator[None]:
    """End what hangs, and refuse memory to what asks for too much."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError(f"no answer for {SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def call(*arguments: object, codes: tuple[int, ...] = CODES) -> Result:
    """Run a command in this process, and judge what holds of every one."""
    words = [str(a) for a in arguments]
    with limited(), heard():
        result = CliRunner().invoke(app, words, prog_name="naskd")
    said = f"naskd {' '.join(words)}\n{result.output[-3000:]}"
    if not (result.exception is None or isinstance(result.exception, SystemExit)):
        trace = "".join(traceback.format_exception(result.exception))
        raise AssertionError(f"a traceback: {said}\n{trace[-4000:]}")
    assert "Traceback" not in result.stderr, f"a traceback: {said}"
    assert result.exit_code in codes, f"exit code {result.exit_code}: {said}"
    if result.exit_code:
        assert result.stderr.strip(), f"it failed and said nothing: {said}"
    assert not (odd := controls(result.output)), f"control characters {odd}: {said!r}"
    return result


def controls(text: str) -> set[str]:
    """Characters that move a terminal's cursor or change its colours."""
    return {repr(c) for c in text if (ord(c) < 32 and c not in "\n\t\r") or 127 <= ord(c) < 160}


def refused(result: Result, *names: str) -> bool:
    """Whether a command refused what it was given; then it named one of these.

    Raises:
        AssertionError: It refused and named nothing that helps.
    """
    if result.exit_code == 0:
        return False
    where = [name for name in (*names, "warm_start[", "the teacher '") if name in result.output]
    assert where, f"it does not say where: none of {names} in\n{result.output[-3000:]}"
    return True
