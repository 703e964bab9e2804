"""Checks plain data (from TOML) against typed dataclasses and says everything that is wrong, in plain words.

pydantic finds the mistakes; what is said about them is built from the annotations of the dataclass, so that
each message names the key, what it got, what is allowed and the nearest known name.
"""

import copy
import dataclasses
import datetime
import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from naskd.spec.numbers import read_number, unit_of
from naskd.spec.option import Configured, either, in_range
from naskd.spec.registry import nearest
from naskd.spec.secrets import redacted
from naskd.spec.visible import visible_line

Location = tuple[str | int, ...]
"""Keys and list positions from the top to a value."""


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Args:
        key: Where, such as ``sampler.name`` or ``line 3``.
        got: What stands there.
        allowed: What may stand there.
        hint: What was probably meant, or "".
    """

    key: str
    got: str
    allowed: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return visible_line(redacted(f"{self.key}: got {self.got}; allowed: {self.allowed}{hint}"))


def schema_problems(cls: type[Any], data: Mapping[str, Any]) -> tuple[list[Problem], dict[str, Any]]:
    """All that is wrong with `data` as a `cls`, and the part of `data` that is right.

    Types are strict: a string is never read as a number; a whole number may stand for a real one.

    Args:
        cls: A pydantic dataclass, whose fields may be such dataclasses again.
        data: Tables as dictionaries.

    Returns:
        The problems in the order of the top-level keys, what is missing first; `data` without what is wrong.
    """
    problems = _literal_problems(cls, data)
    bad = {problem_path for problem_path, _ in problems}
    first = _errors(cls, data)
    for path, error in first:
        # A tuple whose items are wrong is also reported as too short; a union reports every member.
        if path not in bad and not any(path == p[: len(path)] and len(p) > len(path) for p, _ in first):
            problems.append((path, _problem(cls, data, path, error)))
            bad.add(path)
    right = copy.deepcopy(dict(data))
    tables = {path for path, error in first if error["type"] == "value_error" and _is_table(cls, path)}
    # What is left of a list without one of its values is no list that anybody gave.
    bad_values = {path[:-1] if _is_item(data, path) else path for path in bad - tables - {()}}
    bad |= bad_values
    for path in sorted(bad_values, key=lambda p: [str(part).rjust(9) for part in p], reverse=True):
        _remove(right, path)
    # Rules that join several keys are checked only when each key is right by itself, hence a second
    # look without those that are not. A rule about a key that was removed says nothing.
    for path, error in _errors(cls, right):
        removed = {str(p[-1]) for p in bad if p and p[:-1] == path}
        words = set(re.findall(r"\w+", error["msg"]))
        if error["type"] == "value_error" and path not in bad and not removed & words:
            problems.append((path, _problem(cls, right, path, error)))
            bad.add(path)
    order = list(data)
    problems.sort(key=lambda item: order.index(item[0][0]) if item[0] and item[0][0] in order else -1)
    return [problem for _, problem in problems], right


def describe(annotation: Any) -> str:
    """What values an annotation admits, in words."""
    kind, fields = _unwrap(annotation)
    for field in fields:
        if field.description:
            return field.description
    if get_origin(kind) is Literal:
        return either([format_value(value) for value in get_args(kind)])
    if get_origin(kind) in (Union, types.UnionType):
        members = get_args(kind)
        if set(members) >= {bool, int, float, str}:
            return "a number, a string, true or false"
        return either([describe(member) for member in members])
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if items[-1] is not Ellipsis:
            return f"a list of {len(items)}, each {describe(items[0])}"
        return f"a list; each item: {describe(items[0])}"
    if dataclasses.is_dataclass(kind):
        return f"a table with the keys {', '.join(known_keys(kind))}"
    words = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return words.get(kind, "a table") + _bounds(fields)


def allowed_at(cls: type[Any], path: Location) -> str:
    """What values the key at `path` admits, in words.

    Args:
        cls: The dataclass of the whole file.
        path: Of a key that it has.
    """
    return describe(_annotation(cls, path))


def known_keys(annotation: Any) -> list[str]:
    """The keys of a table; of one with options, those that a card takes are among them, after the others."""
    kind = _unwrap(annotation)[0]
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        if isinstance(kind, type) and issubclass(kind, Configured):
            names.remove("options")
            names += [name for card in kind.CARDS for name in card.options]
        return list(dict.fromkeys(names))
    if get_args(kind):
        key = _unwrap(get_args(kind)[0])[0]
        return [str(choice) for choice in get_args(key)]
    return []


def unknown_key(cls: type[Any], path: Location, value: Any, known: Sequence[str]) -> Problem:
    """What is said of a key that a table does not have.

    Args:
        cls: The dataclass of the whole file.
        path: Of the key.
        value: What stands there.
        known: The keys of its table.
    """
    hint = _where(cls, path) or did_you_mean(str(path[-1]), known)
    return Problem(format_key(path), format_value(value), f"the keys {', '.join(known)}", hint)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A hint with the nearest known name; empty when nothing is close."""
    return nearest(name, known).removeprefix("; ")


def format_key(path: Location) -> str:
    """A path as it would be written in TOML, such as ``teacher.architecture.stages[0].width``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            quoted = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part)
            text += f".{quoted}" if text else quoted
    return text


def format_value(value: Any) -> str:
    """A value as it would be written in TOML, shortened, without its passwords."""
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{format_key((k,))} = {format_value(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(format_value(v) for v in value) + "]"
    elif isinstance(value, datetime.date | datetime.time):
        text = f"the date {value}"
    else:
        text = redacted(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 100 else text[:96] + " ..."


def _errors(cls: type[Any], data: Mapping[str, Any]) -> list[tuple[Location, Any]]:
    # JSON because pydantic's strict mode takes tables and lists for dataclasses and tuples only from
    # there. Dates have no place in JSON nor in a study: as a list they are a wrong type everywhere.
    text = json.dumps(data, default=lambda value: [[str(value)]])
    try:
        TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        return [(_path_in(data, e["loc"], e["type"]), e) for e in error.errors(include_url=False)]
    return []


def _path_in(data: Any, location: Sequence[str | int], kind: str) -> Location:
    """The part of an error's location that is in the data; pydantic puts names of union members among its parts."""
    path: list[str | int] = []
    for part in location:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            if kind == "missing" and isinstance(data, Mapping) and part == location[-1]:
                return (*path, part)
            continue
        path.append(part)
    return tuple(path)


def _literal_problems(cls: type[Any], data: Mapping[str, Any]) -> list[tuple[Location, Problem]]:
    """``true`` equals 1 in Python, hence passes for a literal 1."""
    found = []
    for path, value in _leaves(data):
        annotation = _annotation(cls, path)
        kind = _unwrap(annotation)[0]
        choices = get_args(kind) if get_origin(kind) is Literal else (True,)
        if isinstance(value, bool) and not any(isinstance(choice, bool) for choice in choices):
            found.append((path, Problem(format_key(path), format_value(value), describe(annotation))))
    return found


def _leaves(value: Any, path: Location = ()) -> Iterator[tuple[Location, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _leaves(child, (*path, index))
    else:
        yield path, value


def _problem(cls: type[Any], data: Mapping[str, Any], path: Location, error: Any) -> Problem:
    value: Any = data
    for part in path:
        value = value[part] if not isinstance(value, Mapping) or part in value else None
    key, got, annotation = format_key(path), format_value(value), _annotation(cls, path)
    if error["type"] == "missing" and value is None:
        return Problem(key, "nothing", describe(annotation))
    if error["type"] == "value_error" and _is_table(cls, path):
        # The rule itself is the best description of what is allowed.
        keys = ", ".join(f"{format_key((k,))} = {format_value(v)}" for k, v in value.items())
        return Problem(key or "the study", keys or "an empty table", str(error["ctx"]["error"]))
    if annotation is None or error["loc"][-1:] == ("[key]",):
        return unknown_key(cls, path, value, known_keys(_annotation(cls, path[:-1])))
    kind = _unwrap(annotation)[0]
    choices = [str(c) for c in get_args(kind)] if get_origin(kind) is Literal else []
    hint = did_you_mean(str(value), choices) or as_a_number(value, kind, key)
    return Problem(key, got, describe(annotation), hint)


def as_a_number(value: object, kind: object, key: str) -> str:
    """How a number that is given as text, such as ``"4M"``, is written in a study file.

    Args:
        value: What was given.
        kind: Of what is wanted.
        key: Under which it stands, whose name says in what it is counted.

    Returns:
        Empty where no number is wanted, or the text is none that would do.
    """
    number = read_number(value, unit_of(key)) if isinstance(value, str) and kind in (int, float) else None
    if number is None or (kind is int and not number.is_integer()):
        return ""
    return (
        f"write it as a number: {int(number):_}" if number.is_integer() else f"write it as a number: {number}"
    )


def _where(cls: type[Any], path: Location) -> str:
    """The table in which an unknown key is known: TOML gives every key to the last table above it."""
    name = str(path[-1])
    own = _tables(_annotation(cls, path[:-1]))
    above = len(path) > 1 and name in known_keys(cls)
    for table, prefix in ((own, path[:-1]), ({} if above else _tables(cls), ())):
        for field, keys in table.items():
            if name in keys:
                return f"did you mean {format_key((*prefix, field, name))}?"
    return f"{name!r} belongs above the first [table]" if above else _apart(cls, path)


def _apart(cls: type[Any], path: Location) -> str:
    """A name that begins with that of a table of free keys: ``max_latency_ms`` is ``max.latency_ms``."""
    name, table = str(path[-1]), path[:-1]
    first, _, rest = name.partition("_")
    if not rest or difflib.get_close_matches(name, known_keys(_annotation(cls, table)), 1, 0.85):
        return ""
    kind = get_origin(_unwrap(_annotation(cls, (*table, first)))[0])
    free = isinstance(kind, type) and issubclass(kind, Mapping)
    return f"did you mean {format_key((*table, first, rest))}?" if free else ""


def _tables(annotation: Any) -> dict[str, list[str]]:
    kind = _unwrap(annotation)[0]
    if not dataclasses.is_dataclass(kind):
        return {}
    fields = get_type_hints(kind, include_extras=True).items()
    return {name: known_keys(field) for name, field in fields if dataclasses.is_dataclass(_unwrap(field)[0])}


def is_text(cls: type[Any], path: Location) -> bool:
    """Whether what stands at `path` is a string of any kind, so that nothing else than text can be meant.

    Args:
        cls: The dataclass of the whole file.
        path: Of a key.
    """
    return _unwrap(_annotation(cls, path))[0] is str


def _is_table(cls: type[Any], path: Location) -> bool:
    return dataclasses.is_dataclass(_unwrap(_annotation(cls, path))[0])


def _annotation(cls: Any, path: Location) -> Any:
    """The annotation of what stands at `path`, or None where nothing is known to stand."""
    annotation = cls
    for part in path:
        kind = _unwrap(annotation)[0]
        if get_origin(kind) in (Union, types.UnionType):
            # What has parts is the member that is a table.
            kind = next((m for m in get_args(kind) if get_origin(m) not in (None, Annotated)), kind)
        if dataclasses.is_dataclass(kind):
            annotation = get_type_hints(kind, include_extras=True).get(str(part))
        elif get_origin(kind) is tuple:
            annotation = get_args(kind)[0]
        elif get_args(kind) and len(get_args(kind)) == 2:
            annotation = get_args(kind)[1]
        else:
            return None
    return annotation


def _unwrap(annotation: Any) -> tuple[Any, list[FieldInfo]]:
    """The bare type, without ``Annotated`` and ``| None``, and the constraints found on the way."""
    fields: list[FieldInfo] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            fields += [item for item in metadata if isinstance(item, FieldInfo)]
        elif get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
            annotation = Union[tuple(a for a in get_args(annotation) if a is not type(None))]  # noqa: UP007
        else:
            return annotation, fields


def _is_item(data: Any, path: Location) -> bool:
    """Whether `path` leads to an item of a list that is no table."""
    for part in path[:-1]:
        data = data[part]
    last: Any = path[-1]
    return isinstance(data, list) and not isinstance(data[last], Mapping)


def _bounds(fields: Sequence[FieldInfo]) -> str:
    limits: dict[str, Any] = {}
    for field in fields:
        for item in field.metadata:
            limits.update(
                {n: getattr(item, n) for n in ("ge", "gt", "le", "lt", "pattern") if hasattr(item, n)}
            )
    if limits.get("pattern"):
        return f" of the form {limits['pattern']}"
    return in_range(
        low=limits.get("ge"), above=limits.get("gt"), high=limits.get("le"), below=limits.get("lt")
    )


def _remove(data: Any, path: Location) -> None:
    for part in path[:-1]:
        data = data[part]
    key: Any = path[-1]
    if isinstance(data, list) or key in data:
        data.pop(key)
