"""What goes to standard output, and what to standard error. Results are the former, all else the latter."""

import io
import json
import logging
import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naskd.spec.secrets import redacted, without_passwords
from naskd.spec.visible import PLAIN_ERRORS, visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from naskd.report.progress import Progress
    from naskd.runs.run import Run

PIPED_WIDTH = 120
"""Columns of a table that goes to a file or a pipe, unless COLUMNS says otherwise."""


def make_console(*, stderr: bool = False) -> "Console":
    """Where rich things are printed: as wide as the terminal, or as COLUMNS says."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=stderr, highlight=False, width=PIPED_WIDTH)
    return console


def print_result(result: "RenderableType") -> None:
    """A result, to standard output; off a terminal without the blanks that fill its lines."""
    console = make_console()
    if console.is_terminal:
        console.print(Visible(result))
        return
    with console.capture() as captured:
        console.print(Visible(result))
    print("\n".join(line.rstrip(" ") for line in captured.get().split("\n")), end="")


class Visible:
    """Something to print whose text may be anybody's: no password, and nothing that acts on the terminal.

    Args:
        inner: What is printed.
    """

    def __init__(self, inner: "RenderableType") -> None:
        self._inner = inner

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Segment]":
        from rich.segment import Segment as kind  # not at the top: help must not wait for it

        for text, style, control in console.render(self._inner, options):
            yield kind(text if control else visible(redacted(text)), style, control)


def say(message: str) -> None:
    """A message, to standard error."""
    print(visible(redacted(message)), file=sys.stderr)


def print_plainly() -> None:
    """Let both streams take any text, whatever their encoding, and be there."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open to the end, as it was
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN_ERRORS)


def print_json(value: Any) -> None:
    """A result as JSON, to standard output."""
    print(json.dumps(standard(value), indent=2, allow_nan=False))


def standard(value: Any) -> Any:
    """`value` with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): standard(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [standard(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_BEGINNING = ("naskd.data.survey", "naskd.study.taking_over", "naskd.runs.earlier")
"""Loggers that say what a search begins with."""


@contextmanager
def data_said(display: "Progress | None" = None, *, known: bool = True) -> Iterator[list[str]]:
    """Show what a search begins with, as it is logged: images by class and split, what is taken of earlier runs.

    And what goes on, where that takes long. Gives the warnings, which grow.

    Args:
        display: Shows it; None makes one, which shows all other warnings, too.
        known: The images are no news, as to a command that follows a check or a search: they are said in one line.
    """
    from naskd.report.progress import StageProgress
    from naskd.spec.doing import DOING

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == DOING.name:
                showing.doing(record.getMessage())
                return
            said = (getattr(record, "brief", "") if known else "") or record.getMessage()
            if record.levelno >= logging.WARNING:
                # Who says several things in one record has marked the warnings among them.
                marked = getattr(record, "warnings", None)
                warnings.extend([said] if marked is None else marked)
                said = f"warning: {said}" if marked is None else said
            showing.print(visible(redacted(said)))

    showing = StageProgress(make_console(stderr=True)) if display is None else display
    warnings: list[str] = []
    handler, of_others = Handler(logging.INFO), Handler(logging.WARNING)
    loggers = [*map(logging.getLogger, _BEGINNING), DOING]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    everything = logging.getLogger("naskd")
    if display is None:
        everything.addHandler(of_others)
    try:
        with nullcontext() if display is not None else showing:
            yield warnings
    finally:
        everything.removeHandler(of_others)
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Say where an operating system error happened: a full disk does not name the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(place)
        raise


def command_line(
    name: str, *arguments: object, out: Path | None = None, settings: list[str] | None = None
) -> str:
    """A command to copy into a shell."""
    words = ["naskd", name, *map(str, arguments)]
    words += ["--out", str(out)] if out is not None else []
    words += [word for setting in settings or () for word in ("--set", without_passwords(setting))]
    return shlex.join(words)


def shown(run: "Run") -> dict[str, Any]:
    """The record of a run with all trials, without what takes seconds and is on the page alone."""
    return run.to_dict(everything=True, with_importance=False)
