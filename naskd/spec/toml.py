"""Study files as plain data: what is no file, no text or no TOML is one problem, whatever is in it."""

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naskd.spec.toml_comments import Comment, Comments, Place
from naskd.spec.validation import Location, Problem, format_key

MOST_BYTES = 10 * 2**20
"""A study file is smaller; what is larger is another kind of file."""

MOST_LEVELS = 32
"""Tables and lists in each other."""

_WHAT = "study file"
_EXAMPLE = 'TOML, such as epochs = 20 or name = "digits"'


def read_file(path: Path) -> dict[str, Any] | Problem:
    """The tables of a study file, or why it cannot be read.

    A UTF-8 byte order mark, as editors of Windows write it, is passed over.
    """
    try:
        # Not blocking: a named pipe would be waited for before anybody can ask what it is.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return Problem(_WHAT, f"{path}, which is no regular file", "the path of a TOML file")
            if status.st_size > MOST_BYTES:
                size = f"{status.st_size / 2**20:.0f} MiB"
                return Problem(_WHAT, f"{path} of {size}", f"a TOML file of at most {MOST_BYTES >> 20} MiB")
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return Problem(_WHAT, f"{path} ({why})", "the path of a readable TOML file")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:2]:
        return Problem(_WHAT, "text in UTF-16", "TOML in UTF-8: save it again with that encoding")
    try:
        return read_toml(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Problem(_WHAT, f"bytes that are not text, at position {error.start}", "TOML in UTF-8")


def read_toml(text: str) -> dict[str, Any] | Problem:
    """Parsed TOML, or the line that is not TOML."""
    lines = text.split("\n")  # as TOML ends them: Python would also at characters that may stand in a text
    for number, line in enumerate(lines, 1):
        # Asked before parsing, whose time grows with the square of the levels.
        if line.partition("=")[0].count(".") > MOST_LEVELS and not line.lstrip().startswith("#"):
            return _too_deep(f"line {number}")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what = str(error)
        place = re.search(r" \(at line (\d+), column \d+\)$", what)
        number = int(place[1]) if place else len(lines) - (len(lines) > 1 and not lines[-1])
        got = lines[min(number, len(lines)) - 1].strip()
        got = got if len(got) <= 100 else got[:96] + " ..."
        reason = what[: place.start()] if place else what.removesuffix(" (at end of document)")
        return Problem(f"line {number}", repr(got), _EXAMPLE, reason)
    except RecursionError:
        return _too_deep(_WHAT)
    except ValueError as error:  # of Python, for a number of thousands of digits
        return Problem(
            _WHAT, "a number that cannot be read", "numbers of at most 64 bits", str(error).partition(";")[0]
        )
    return _beyond(data) or data


def _too_deep(key: str) -> Problem:
    return Problem(key, "tables or lists that are nested too deeply", f"at most {MOST_LEVELS} levels")


def _beyond(data: dict[str, Any]) -> Problem | None:
    """What TOML can say and a study cannot mean: a nest of tables, a number of more than 64 bits."""
    waiting: list[tuple[Location, Any]] = [((), data)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict | list):
            if len(path) > MOST_LEVELS:
                return _too_deep(format_key(path[:3]))
            children = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [((*path, key), child) for key, child in children]
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            return Problem(
                format_key(path), f"a number of {value.bit_length()} bits", "numbers of at most 64 bits"
            )
    return None


@dataclass(frozen=True)
class Setting:
    """A ``key.path=value`` of ``--set``.

    Args:
        path: Of the key.
        text: The value as typed.
        value: The same read as TOML, or the text where it is none.
    """

    path: tuple[str, ...]
    text: str
    value: Any

    def put(self, data: dict[str, Any], value: Any) -> Problem | None:
        """Put a value where the setting belongs, in place."""
        table = data
        for depth, part in enumerate(self.path[:-1]):
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                where = format_key(self.path[: depth + 1])
                return Problem(
                    repr(f"{format_key(self.path)}={self.text}"),
                    f"{where}, which is not a table",
                    "keys of tables",
                )
        table[self.path[-1]] = value
        return None


def read_setting(given: str) -> Setting | Problem:
    """What ``--set`` was given."""
    key, equals, text = given.partition("=")
    path = () if "\n" in key or isinstance(data := read_toml(f"{key} = 0"), Problem) else _single_path(data)
    if not equals or not path:
        return Problem(repr(given), "no key and value", "key=value or table.key=value")
    read = read_toml(f"value = {text}") if "\n" not in text else {}
    # A text that ends the value and goes on is no value.
    is_value = isinstance(read, dict) and read.keys() == {"value"}
    return Setting(path, text.strip(), read["value"] if isinstance(read, dict) and is_value else text.strip())


def _single_path(data: Any) -> tuple[str, ...]:
    path: list[str] = []
    while isinstance(data, dict):
        ((key, data),) = data.items()
        path.append(key)
    return tuple(path)


def write_toml(data: Mapping[str, Any], comments: Comments | None = None) -> str:
    """Plain data as TOML: what is no table first, then tables, then lists of tables; :func:`read_toml` reads it.

    Args:
        data: Of mappings, lists, texts, numbers and truth values.
        comments: Written beside the keys and tables that they are of.
    """
    at = comments.at if comments is not None else {}
    return "\n".join(_table(data, (), (), at)).lstrip("\n") + "\n"


def _table(data: Mapping[str, Any], place: Place, at: Place, comments: Mapping[Place, Comment]) -> list[str]:
    """The lines of a table.

    Args:
        data: Its content.
        place: Of it, as its head says it.
        at: Of it, as its comments do.
        comments: Of the file.
    """

    def said(line: str, where: Place) -> list[str]:
        comment = comments.get(where, Comment())
        return [*comment.above, f"{line}  {comment.behind}" if comment.behind else line]

    lines: list[str] = []
    later: list[str] = []
    for key, value in data.items():
        path, where = (*place, key), (*at, key)
        if isinstance(value, Mapping):
            later += ["", *said(f"[{_path(path)}]", where), *_table(value, path, where, comments)]
        elif (
            len(place) == 0
            and isinstance(value, list)
            and value
            and all(isinstance(v, Mapping) for v in value)
        ):
            for number, one in enumerate(value):
                within = (*where, str(number))
                later += ["", *said(f"[[{_path(path)}]]", within), *_table(one, path, within, comments)]
        else:
            lines += said(f"{_path((key,))} = {_value(value)}", where)
    return lines + later


def _path(path: tuple[str, ...]) -> str:
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else _text(part) for part in path)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_path((key,))} = {_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _text(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
