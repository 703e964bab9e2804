"""The comments of a TOML file, by the key or table that they stand at, so that they can be written beside it again."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str, ...]
"""Of a key or a table, from the top; of a list of tables each has its number, as ``("teachers", "0", "name")``."""


@dataclass(frozen=True)
class Comment:
    """What is said of a key or a table.

    Args:
        above: Lines of comments above it.
        behind: A comment at the end of its line; empty where there is none.
    """

    above: tuple[str, ...] = ()
    behind: str = ""


@dataclass(frozen=True)
class Comments:
    """Of a file.

    Args:
        head: Lines at its top that an empty line separates from the rest.
        at: By place.
    """

    head: tuple[str, ...] = ()
    at: Mapping[Place, Comment] = field(default_factory=dict)


def read_comments(text: str) -> Comments:
    """The comments of a TOML file. Those inside of a value of several lines, and those at its end, are left out.

    Args:
        text: Of a file that ``tomllib`` reads.
    """
    head: tuple[str, ...] = ()
    at: dict[Place, Comment] = {}
    above: list[str] = []
    table: Place = ()
    seen: dict[Place, int] = {}
    # Where TOML ends lines: Python would also at characters that may stand in a text.
    lines = iter(text.replace("\r\n", "\n").removesuffix("\n").split("\n"))
    for line in lines:
        bare = line.strip()
        if not bare:
            if above and not at and not head:
                head, above = tuple(above), []
        elif bare.startswith("#"):
            above.append(bare)
        else:
            while (parsed := _parsed(line)) is None:
                line += "\n" + next(lines)
            place = _place(parsed, bare)
            if bare.startswith("[["):
                seen[place] = seen.get(place, -1) + 1
                place = table = (*place, str(seen[place]))
            elif bare.startswith("["):
                first, *rest = place
                place = table = (first, str(seen[(first,)]), *rest) if (first,) in seen else place
            else:
                place = (*table, *place)
            at[place] = Comment(tuple(above), _behind(line, parsed))
            above = []
    return Comments(head, at)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _place(parsed: Mapping[str, Any], line: str) -> Place:
    """Of what one line defines: the only key, and the only one in that, as far as the line says them."""
    place: list[str] = []
    value: Any = parsed
    wanted = _depth(line)
    while len(place) < wanted:
        if isinstance(value, list):
            value = value[0]
        (key,) = value
        place.append(key)
        value = value[key]
    return tuple(place)


def _depth(line: str) -> int:
    """How many parts the key of a line has: dots outside of quotes, before the ``=`` or the ``]``."""
    quote, parts = "", 1
    for sign in line.lstrip("["):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "=]":
            break
        elif sign == ".":
            parts += 1
    return parts


def _behind(text: str, parsed: Mapping[str, Any]) -> str:
    """The comment at the end of what was parsed: from the first ``#`` on without which it says the same."""
    last = text.rpartition("\n")[0]
    start = len(last) + 1 if last else 0
    for position in (i for i in range(start, len(text)) if text[i] == "#"):
        if _parsed(text[:position]) == parsed:
            return text[position:].rstrip()
    return ""
