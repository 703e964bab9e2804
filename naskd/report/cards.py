"""The whole card of a registered method, in the terminal."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.spec.option import Option
from naskd.spec.places import at, named


def card_table(kind: str, card: Any) -> Group:
    """All that a card says; what it does not need, and does not do, is left out.

    Args:
        kind: What the card describes, such as ``block``.
        card: A dataclass with at least a ``name`` and a ``title``.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    options: Mapping[str, Any] = {}
    for field in dataclasses.fields(card):
        value = getattr(card, field.name)
        if field.name in ("name", "title"):
            continue
        if field.name == "options":
            options = value
        elif value not in (False, "", (), None) and (text := _plain(value)):
            grid.add_row(Text(field.name.replace("_", " ")), Text(text))
    for name, option in options.items():
        grid.add_row(Text(f"option {name}"), Text(_option(option)))
    return Group(Text.assemble((card.name, "bold"), f"  {kind}: {card.title}"), grid)


def card_facts(kind: str, card: Any) -> dict[str, Any]:
    """All that a card says, as plain JSON; what is a class or a function is where it is defined.

    Args:
        kind: As for :func:`card_table`.
        card: As there.

    Returns:
        ``kind``, the fields of the card, and below ``options`` for each its ``meaning``, ``default``, ``required`` and
        what is ``allowed``, in words.
    """
    fields = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    options = {
        name: {
            "meaning": option.meaning,
            "default": _json(option.default),
            "required": option.required,
            "allowed": option.allowed,
        }
        for name, option in fields.pop("options", {}).items()
    }
    return {"kind": kind, **{name: _json(value) for name, value in fields.items()}, "options": options}


def _json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return _plain(value)


def _plain(value: Any) -> str:
    if value is True:
        return "yes"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_plain, value))
    return _name(value) if callable(value) else str(value)


def _name(function: Any) -> str:
    """Where a function or a class is defined; "" for one that nobody can import by its name.

    Of a user's file the name and the line: as a module it has a name that is nobody's business.
    """
    inner = getattr(function, "func", function)  # of a partial
    if at(inner):
        return named(inner)
    owner = inner if hasattr(inner, "__qualname__") else type(inner)
    private = any(part.startswith(("_", "<")) for part in owner.__qualname__.split("."))
    return "" if private else f"{owner.__module__}:{owner.__qualname__}"


def _option(option: Option) -> str:
    default = f"default {option.default!r}; " if option.default is not None else ""
    needed = "required; " if option.required else ""
    return f"{option.meaning} ({default}{needed}{option.allowed})"
