"""A JSON schema of study files, so that editors complete keys and names, and underline mistakes.

It is made from the types, docstrings and cards that read a study file. It says less than ``naskd check``: whether
files are there, and whether values go together, only that knows.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter

from naskd.spec.loggers import LOGGERS
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.option import Configured, Option
from naskd.spec.study import StudyTable
from naskd.spec.tables import TABLES
from naskd.spec.teachers import TeacherSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def study_schema() -> dict[str, Any]:
    """The schema of a study file, with the names that are registered now and the options of their cards.

    Methods of a study's `modules` are among them when those are imported.
    """
    schema = TypeAdapter(StudyTable).json_schema()
    definitions = schema["$defs"]
    described = _dataclasses(StudyTable)
    for name, table in {**definitions, StudyTable.__name__: schema}.items():
        said = arguments(described[name].__doc__)
        table["description"] = inspect.cleandoc(described[name].__doc__ or "").partition("\n\n")[0]
        table.pop("title", None)
        for key, value in table["properties"].items():
            value.pop("title", None)
            if key in said:
                value["description"] = _plain(said[key])
    for spec in (*TABLES.values(), TeacherSpec):
        _add_options(definitions[spec.__name__], spec)
    _name_objectives(schema, definitions)
    callbacks = definitions["ExecutionSpec"]["properties"]["callbacks"]
    callbacks["items"] = {"enum": list(LOGGERS.names())}
    _without_null(schema)
    return {"$schema": DIALECT, "title": "naskd study file", **schema}


def arguments(docstring: str | None) -> dict[str, str]:
    """What the ``Args:`` of a Google-style docstring say, by name; ``a, b: text`` says it of both."""
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in inspect.cleandoc(docstring or "").splitlines():
        if not line.startswith(" "):
            inside = line.rstrip() in ("Args:", "Attributes:") or (inside and not line.strip())
        elif inside and (entry := re.match(r" {4}(\w[\w, *]*): ?(.*)", line)):
            names = [name.strip(" *") for name in entry[1].split(",")]
            found.update(dict.fromkeys(names, entry[2].strip()))
        elif inside and line.strip():
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found


def _plain(text: str) -> str:
    """A docstring's text without its marks."""
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("`", "")


def _dataclasses(top: type[Any]) -> dict[str, type[Any]]:
    """A dataclass and all that its fields hold, at any depth, by name."""
    found: dict[str, type[Any]] = {}
    waiting: list[Any] = [top]
    while waiting:
        hint = waiting.pop()
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint.__name__ not in found:
            found[hint.__name__] = hint
            waiting += get_type_hints(hint).values()
        else:
            waiting += get_args(hint)
    return found


def _add_options(table: dict[str, Any], spec: type[Configured]) -> None:
    """The names that a table may choose from, and the options of all of them."""
    properties = table["properties"]
    properties.pop("options")
    chosen = properties[spec.CHOOSER]
    said = chosen.get("description", "")
    properties[spec.CHOOSER] = {
        **({"default": chosen["default"]} if chosen.get("default") is not None else {}),
        "description": said,
        "enum": [card.name for card in spec.CARDS],
    }
    for name, readers in _options(spec).items():
        if name not in properties:
            first = next(iter(readers.values()))
            whose = " or ".join(repr(reader) for reader in readers)
            properties[name] = {
                **_option(first),
                "description": f"With {spec.CHOOSER} = {whose}: {first.meaning}.",
            }


def _options(spec: type[Configured]) -> dict[str, dict[str, Option]]:
    """The options of a registry's cards: by name, then by the card that reads them."""
    found: dict[str, dict[str, Option]] = {}
    for card in spec.CARDS:
        for name, option in card.options.items():
            found.setdefault(name, {})[card.name] = option
    return found


def _option(option: Option) -> dict[str, Any]:
    types: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}
    bounds = {"minimum": option.low, "maximum": option.high, "exclusiveMinimum": option.above}
    return {
        "type": types[option.type],
        **{name: bound for name, bound in bounds.items() if bound is not None},
        **({"enum": list(option.choices)} if option.choices else {}),
        **({"pattern": f"^(?:{option.pattern})$"} if option.pattern else {}),
        **({"default": option.default} if option.default is not None else {}),
    }


def _name_objectives(schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    schema["properties"]["objectives"]["items"] = {"enum": list(OBJECTIVES.names())}
    limits = definitions["LimitsSpec"]["properties"]
    for key in ("max", "min"):
        limits[key]["propertyNames"] = {"enum": [card.name for card in OBJECTIVES if card.known == "before"]}


def _without_null(node: Any) -> None:
    """TOML has no null, and whole numbers may be written as 2e6; in place."""
    for child in _children(node):
        _without_null(child)
    if not isinstance(node, dict):
        return
    if isinstance(some := node.get("anyOf"), list):
        left = [each for each in some if each != {"type": "null"}]
        if len(left) == 1:
            del node["anyOf"]
            node.update({key: value for key, value in left[0].items() if key not in node})
        else:
            node["anyOf"] = left
    if "default" in node and node["default"] is None:
        del node["default"]
    if "ge" in node:
        node["minimum"] = node.pop("ge")
    if node.get("type") == "integer":
        node["type"] = ["integer", "number"]
        node["multipleOf"] = 1


def _children(node: Any) -> Iterator[Any]:
    yield from node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
