"""What pydantic found wrong with an argument, in one line of plain words: its field, its value and what is allowed."""

import dataclasses
import inspect
import re
import sys

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from naskd.spec.registry import nearest


def first_mistake(error: ValidationError) -> str:
    """The first one about a name; where none is, the first, with what was given."""
    return unknown_name(error) or _refused(error)


def unknown_name(error: ValueError) -> str:
    """The first mistake of a dataclass's arguments that is about a name; empty where none is."""
    if not isinstance(error, ValidationError):
        return ""
    # A mistyped name leaves its field missing, too: the name that is unknown says more.
    found = sorted(
        error.errors(include_url=False), key=lambda each: each["type"] != "unexpected_keyword_argument"
    )
    return next(filter(None, (_in_words(each, error.title) for each in found)), "")


def meant_keyword(error: TypeError) -> str:
    """Which argument of a function was meant, as a clause behind Python's own message; empty where none is close.

    Python names the function: it is looked up where it was called.
    """
    told = re.match(r"([\w.]+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if told is None or place is None:
        return ""
    first, *rest = told[1].removesuffix(".__init__").split(".")
    function = {**place.tb_frame.f_globals, **place.tb_frame.f_locals}.get(first)
    for name in rest:
        function = getattr(function, name, None)
    if not callable(function):
        return ""
    try:
        known = [name for name in inspect.signature(function).parameters if name not in ("self", "trial")]
    except (TypeError, ValueError):  # one that is not written in Python
        return ""
    return nearest(told[2], known)


def where(mistake: ErrorDetails, title: str) -> str:
    """The argument of a dataclass that a mistake is in, by its name where it was given by its place."""
    first, *rest = mistake["loc"] or ("the whole",)
    fields = _fields(title)
    if isinstance(first, int) and first < len(fields):
        first = fields[first]
    return ".".join(map(str, (first, *rest)))


def _refused(error: ValidationError) -> str:
    mistake = error.errors(include_url=False)[0]
    given = repr(mistake["input"])
    shown = given if len(given) <= 100 else f"{given[:96]} ..."
    # Of a rule that joins several arguments, what was given is all of them.
    got = f"got {shown}; " if mistake["loc"] else ""
    says = mistake["msg"].removeprefix("Value error, ")
    return f"{error.title}: {where(mistake, error.title)}: {got}{says}"


def _in_words(mistake: ErrorDetails, title: str) -> str:
    place = where(mistake, title)
    kind, given = mistake["type"], mistake["input"]
    if kind == "literal_error" and isinstance(given, str):
        expected = mistake.get("ctx", {}).get("expected", "")
        known = re.findall(r"'([^']*)'", expected)
        return f"unknown {place} {given!r} in {title}; known: {', '.join(known)}{nearest(given, known)}"
    if kind == "unexpected_keyword_argument":
        fields = _fields(title)
        known_fields = f"; known: {', '.join(fields)}{nearest(place, fields)}" if fields else ""
        return f"{title} has no field {place!r}{known_fields}"
    if kind in ("missing", "missing_argument", "unexpected_positional_argument", "multiple_argument_values"):
        return f"{title}: {place}: {mistake['msg']}"
    return ""


def _fields(title: str) -> list[str]:
    # Looked up, since errors are below the designs; what refuses a design's argument is loaded.
    part = getattr(sys.modules.get("naskd.spec.design"), title, None)
    return [field.name for field in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
