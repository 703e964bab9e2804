"""Arguments and options that commands share, and how their values are read."""

import math
from pathlib import Path
from typing import Annotated

import typer

from naskd.spec.numbers import read_number


def check_seconds(value: float | None) -> float | None:
    """A length of time above 0."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value:g} is not a length of time; give seconds above 0.")
    return value


def parse_count(value: str) -> int:
    """A whole number of multiply-accumulates that may be written as 1e6 or 100k."""
    number = read_number(value, "MACs")
    if number is None or not (number >= 1 and number.is_integer()):
        raise typer.BadParameter(
            f"{value} is not a count; give a whole number from 1 on, such as 50000, 1e6 or 100k."
        )
    return int(number)


def parse_fraction(value: str) -> float:
    """A number from 0 to 1 that may be written as 97.5%."""
    number = read_number(value, "fraction")
    if number is None or not 0 <= number <= 1:
        hint = f", such as {number / 100:g}" if number is not None and 1 < number <= 100 else ""
        raise typer.BadParameter(f"{value} is not a fraction; give one from 0 to 1{hint}.")
    return number


def parse_milliseconds(value: str) -> float:
    """A length of time in milliseconds, such as 20ms, 0.5s or 20."""
    text = value.strip().lower()
    in_seconds = text.endswith("s") and not text.endswith("ms")
    number = read_number(text.removesuffix("s"), "seconds") if in_seconds else read_number(text, "ms")
    if number is None or not 0 < number < math.inf:
        raise typer.BadParameter(f"{value} is not a length of time; give one above 0, such as 20ms or 0.5s.")
    return 1000 * number if in_seconds else number


StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.", show_default=False)]
RunDir = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, such as runs/digits.", show_default=False)
]
Trial = Annotated[int, typer.Argument(metavar="TRIAL", help="Number of a trial.", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the study file: VALUE is TOML, 1.5M, or text; may be repeated.",
        show_default=False,
    ),
]
Places = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=PATH",
        help="Where a file of the study is now: data.root, teacher.checkpoint, latency.profile, base (its folder).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
