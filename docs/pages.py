"""Makes the pages of the site: prose is copied, reference is written from the code, so that nothing stands twice.

    python docs/pages.py build

reads this folder and the package, imports no engine (no torch, optuna or ray), and writes what the site generator
reads: ``build/docs`` and ``build/mkdocs.yml``. `scripts/docs` calls it. In a page these have a table behind them, which

    python docs/pages.py --tables

writes anew in this folder:

    <!-- keys: module:Class prefix -->                   the fields of a dataclass, with `prefix` before each
    <!-- options: module:REGISTRY module:Class -->       the options of all cards that are no fields of the class
    <!-- objectives -->                                  the objectives
    <!-- floors -->                                      who may import whom, from the import contracts
"""

import dataclasses
import importlib
import inspect
import re
import shutil
import sys
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from naskd.spec.schema import arguments

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "naskd"

REGISTRIES: dict[str, tuple[str, str, str]] = {
    "blocks": ("Blocks", "naskd.networks", "BLOCKS"),
    "families": ("Network families", "naskd.networks", "FAMILIES"),
    "knowledge": ("Kinds of knowledge", "naskd.knowledge", "KNOWLEDGE"),
    "schemes": ("Schemes", "naskd.schemes", "SCHEMES"),
    "teachings": ("Teaching presets", "naskd.teachings", "TEACHINGS"),
    "samplers": ("Samplers", "naskd.spec.samplers", "SAMPLERS"),
    "stopping": ("Stopping rules", "naskd.spec.stopping", "STOPPING_RULES"),
    "objectives": ("Objectives", "naskd.spec.objectives", "OBJECTIVES"),
    "data": ("Kinds of data", "naskd.spec.datasets", "DATASETS"),
    "modalities": ("Second modalities", "naskd.spec.modalities", "MODALITIES"),
    "teachers": ("Teacher sources", "naskd.spec.teachers", "TEACHER_SOURCES"),
    "executors": ("Executors", "naskd.executors", "EXECUTORS"),
    "loggers": ("Loggers", "naskd.spec.loggers", "LOGGERS"),
    "exports": ("Export formats", "naskd.spec.exports", "EXPORTS"),
    "devices": ("Devices", "naskd.spec.devices", "DEVICES"),
}
"""Page, and where its registry stands. One that does not exist, or holds nothing, has no page."""

ROOMS = {
    "spec": "Ground floor: what a study, a design and a card are",
    "nn": "What networks show, and what they cost",
    "store": "What is kept on disk",
    "data": "Images, splits and views",
    "networks": "Blocks, students and teachers",
    "knowledge": "Knowledge losses and the bank",
    "schemes": "Who trains together, and who supervises whom",
    "training": "The training loop",
    "trials": "One trial",
    "tables": "Recorded trainings, for questions of search",
    "executors": "Who runs the trials",
    "study": "Proposals, the ledger and admission",
    "loggers": "Who follows a search",
    "report": "What people look at",
    "runs": "Runs: search, retrain, export",
    "cli": "The command line, thin over the calls of `naskd`",
    "testing": "Suites for methods of your own",
}
"""Folders of the package that the reference of the Python API has a page of."""

FACES = {
    "launch": "`naskd.search`: reads the study and begins what takes seconds; torch-free itself",
    "spaces": "The parts of a search space",
    "teachings": "Ways of being taught: presets, and how a space searches one",
    "supervising": "Who teaches, as a part of a search space: teachers and assistants",
    "resnets": "Published ResNets as architectures, for spaces of simplified teachers",
    "reducing": "What of a user's own network may become smaller",
    "suggesting": "How parts of a space get their values",
    "config": "Names that search spaces import, kept where they were",
}
"""Modules of the package that are no folders."""

_ROLE = re.compile(r":(?:class|func|mod|data|meth|attr|exc|obj):`~?(?:[\w.]*\.)?(\w+)`")


def markdown(text: str) -> str:
    """A docstring's text as Markdown: no roles, inline code in single backticks, one line."""
    return re.sub(r"``([^`]+)``", r"`\1`", _ROLE.sub(r"`\1`", " ".join(text.split())))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = tuple(head)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def named(place: str) -> Any:
    """What ``module:name`` is; None where the module has no such name."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name, None)


def _toml(value: Any) -> str:
    """A value as a study file writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"{value // 2**30} GiB" if value % 2**30 == 0 else f"{value // 2**20} MiB"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)


def _default(field: "dataclasses.Field[Any]") -> str:
    value = field.default
    if hasattr(value, "default_factory"):  # pydantic's Field(default_factory=...)
        return ""
    if value is dataclasses.MISSING:
        return "" if field.default_factory is not dataclasses.MISSING else "required"
    return "" if value is None or (value == () and field.name == "options") else f"`{_toml(value)}`"


def _bare(annotation: Any) -> Iterator[Any]:
    """The alternatives of an annotation, without what pydantic adds to them."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from _bare(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for alternative in typing.get_args(annotation):
            yield from _bare(alternative)
    elif annotation is not type(None):
        yield annotation


def _type(annotation: Any) -> str:
    """What may be written: a word for each alternative."""
    words = {str: "string", int: "whole number", float: "number", bool: "true or false"}
    found = []
    for kind in _bare(annotation):
        if typing.get_origin(kind) is typing.Literal:
            found += [f"`{_toml(value)}`" for value in typing.get_args(kind)]
        elif typing.get_origin(kind) in (tuple, list):
            found.append("list")
        elif dataclasses.is_dataclass(kind) or typing.get_origin(kind) is not None:
            found.append("table")
        else:
            found.append(words.get(kind, getattr(kind, "__name__", str(kind))))
    return ", ".join(dict.fromkeys(found))


def _bounds(annotation: Any) -> str:
    """The range of a number, such as ``at least 1``; empty without one."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return "".join(map(_bounds, typing.get_args(annotation)))
    if typing.get_origin(annotation) is not typing.Annotated:
        return ""
    inner, *added = typing.get_args(annotation)
    limits = [limit for item in added for limit in (item, *getattr(item, "metadata", ()))]
    words = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
    found = [
        f", {word} {getattr(limit, name):g}"
        for limit in limits
        for name, word in words
        if isinstance(getattr(limit, name, None), int | float)
    ]
    return _bounds(inner) + "".join(dict.fromkeys(found))


def keys(place: str, prefix: str = "") -> str:
    """The table of the fields of the dataclass ``module:Class``, as keys of a study file."""
    cls = named(place)
    said, hints = arguments(cls.__doc__), typing.get_type_hints(cls, include_extras=True)
    own = [f for f in dataclasses.fields(cls) if f.name in said and f.name != "options"]
    return table(
        ("key", "value", "default", "what"),
        (
            (
                f"`{prefix}{f.name}`",
                _type(hints[f.name]) + _bounds(hints[f.name]),
                _default(f),
                markdown(said[f.name]).replace("See their types.", "See below."),
            )
            for f in own
        ),
    )


def _range(option: Any) -> str:
    """What an option may be, besides its type."""
    if getattr(option, "choices", ()):
        return ", ".join(f"`{choice}`" for choice in option.choices)
    low, high = getattr(option, "low", None), getattr(option, "high", None)
    bounds = [f"at least {low:g}"] if low is not None else []
    return ", ".join(bounds + ([f"at most {high:g}"] if high is not None else []))


def _option_row(name: str, option: Any) -> tuple[str, ...]:
    default = "" if option.default is None else f"`{_toml(option.default)}`"
    return (f"`{name}`", default, _range(option), markdown(option.meaning))


def options(place: str, besides: str) -> str:
    """The table of the options of all cards of the registry ``module:REGISTRY``, but for those of the table before.

    Args:
        place: Of the registry.
        besides: The dataclass whose fields that table has.
    """
    known = {f.name for f in dataclasses.fields(named(besides))}
    rows: dict[tuple[str, ...], list[str]] = {}
    for card in named(place) or ():
        for name, option in getattr(card, "options", {}).items():
            if name not in known:
                rows.setdefault(_option_row(name, option), []).append(f"`{card.name}`")
    if not rows:
        return "There are no others."
    return table(
        ("key", "with", "default", "range", "what"),
        ((row[0], ", ".join(cards), *row[1:]) for row, cards in rows.items()),
    )


def objectives() -> str:
    """The table of the objectives, from their registry."""
    rows = [
        (f"`{card.name}`", card.title, card.direction, card.unit, card.scale, f"{card.known} training")
        for card in named("naskd.spec.objectives:OBJECTIVES")
    ]
    return table(("name", "title", "better", "unit", "scale", "known"), rows)


def floors() -> str:
    """The table of the floors, highest first, from the import contracts."""
    contracts = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers" and "naskd.spec" in c["layers"])
    rows = []
    for floor, layer in zip(range(len(layers), 0, -1), layers, strict=True):
        for module in layer.split(" | "):
            room = module.strip(" ()").removeprefix("naskd.")
            rows.append((str(floor), f"`naskd.{room}`", ROOMS.get(room, FACES.get(room, ""))))
    return table(("floor", "room", "what lives there"), rows)


_MAKERS = {"keys": keys, "options": options, "objectives": objectives, "floors": floors}
_MARKED = re.compile(rf"(<!-- ({'|'.join(_MAKERS)})(?:: ([\w.: ]+))? -->\n)(?:\n(?:\|.*\n)+)?")


def filled(text: str, marked: bool = False) -> str:
    """A page with a table as it is now for each of its markers.

    Args:
        text: Of the page; a table that follows a marker was made of it before, and is replaced.
        marked: Leave the markers where they are, as in the repository, whose readers want the tables, too.
    """

    def made(match: re.Match[str]) -> str:
        found = _MAKERS[match[2]](*(match[3] or "").split()).strip("\n") + "\n"
        return f"{match[1]}\n{found}" if marked else found

    return _MARKED.sub(made, text)


def refresh() -> None:
    """Writes the tables of this folder's pages anew."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text()
        if (now := filled(text, marked=True)) != text:
            path.write_text(now)
            print(f"wrote {path}")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    if isinstance(value, str):
        return markdown(value)
    return f"`{value:g}`" if isinstance(value, float) else str(value)


def card_section(card: Any) -> str:
    """All that a card says, without what is at its default."""
    said = {f.name: getattr(card, f.name) for f in dataclasses.fields(card)}
    lines = [f"## {card.name}", "", f"{card.title[:1].upper()}{card.title[1:]}.", ""]
    if said.get("equation"):
        lines += ["```text", str(said["equation"]), "```", ""]
    if card.paper:
        lines += [f"Paper: {markdown(card.paper)}", ""]
    skipped = ("name", "title", "paper", "equation", "options", "implementation")
    facts = [
        f"- `{f.name}`: {_value(said[f.name])}"
        for f in dataclasses.fields(card)
        if f.name not in skipped
        and (f.default is dataclasses.MISSING or said[f.name] != f.default)
        and not callable(said[f.name])
        and not (isinstance(said[f.name], Mapping) and not said[f.name])
    ]
    if isinstance(card.implementation, str):
        facts.append(f"- implemented in `{card.implementation.replace(':', '.')}`")
    lines += [*facts, ""]
    if said.get("options"):
        rows = (_option_row(name, option) for name, option in said["options"].items())
        lines += [table(("option", "default", "range", "what"), rows), ""]
    return "\n".join(lines)


def methods() -> dict[str, str]:
    """A page for each registry, and one that lists them."""
    pages, listing = {}, []
    for page, (title, module, name) in REGISTRIES.items():
        cards = list(named(f"{module}:{name}") or ())
        if not cards:
            continue
        cls = type(cards[0])
        fields = table(
            ("field", "meaning"),
            ((f"`{key}`", markdown(text)) for key, text in arguments(cls.__doc__).items()),
        )
        pages[f"reference/methods/{page}.md"] = "\n".join(
            [
                f"# {title}",
                "",
                f"Written from the cards of `{module}.{name}`. `naskd methods NAME` prints one of them.",
                "",
                *(card_section(card) for card in cards),
                "## What a card says",
                "",
                fields,
                "",
            ]
        )
        names = ", ".join(f"[`{card.name}`]({page}.md#{_anchor(card.name)})" for card in cards)
        listing.append((f"[{title}]({page}.md)", names))
    pages["reference/methods/index.md"] = "\n".join(
        [
            "# Methods",
            "",
            "All that is registered, from the cards themselves. `naskd methods` prints the same list.",
            "",
            table(("kind", "names"), listing),
            "",
        ]
    )
    return pages


def _anchor(heading: str) -> str:
    """The anchor that Markdown's table of contents gives a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def command_line() -> str:
    """The reference of the command line, from the commands themselves."""
    import click
    import typer.main

    from naskd.cli import app

    group = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        "Written from the commands. `naskd COMMAND --help` prints the same.",
        "",
        "What you give wrongly ends with one line or a list, and exit code 2.",
        "A run that cannot go on ends with exit code 1, and so does a search with less than was asked of it. "
        "A second Ctrl-C of a search ends with 130, and so does one before anything runs, or of another command. "
        "All that went well ends with 0.",
        "",
    ]
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # Typer's type is any command
        context = click.Context(command, info_name=f"naskd {name}")
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"## naskd {name}", "", "```text", f"naskd {name} {usage}", "```", ""]
        lines += [inspect.cleandoc(command.help or "").replace("\b\n", ""), ""]
        rows = []
        for parameter in command.params:
            record = parameter.get_help_record(context)
            if record is None:  # an argument: typer keeps its help apart
                label, text = parameter.make_metavar(context), getattr(parameter, "help", "") or ""
            else:
                label, text = record
            if "--help" not in label:
                rows.append((f"`{' '.join(label.split())}`", " ".join(text.split())))
        if rows:
            lines += [table(("argument", "what"), rows), ""]
    return "\n".join(lines)


def python_api() -> dict[str, str]:
    """A page for each folder of the package, and one for its face; docstrings are read when the site is built."""
    face = importlib.import_module("naskd")
    places: dict[str, list[str]] = {}
    for name, module in face._LAZY.items():
        places.setdefault(module, []).append(name)
    lines = [
        "# Python API",
        "",
        "Everything that `import naskd` gives, then the parts of a search space.",
        "Other modules are on the pages beside this one, by folder.",
        "",
    ]
    for module, names in places.items():
        for name in names:
            lines += [f"::: {module}.{name}", "    options:", "      heading_level: 2", ""]
    for module in ("spaces", "teachings"):
        lines += [f"::: naskd.{module}", "    options:", "      heading_level: 2", ""]
    pages = {"reference/api/index.md": "\n".join(lines)}
    for room, title in ROOMS.items():
        modules = sorted(
            path.relative_to(PACKAGE.parent).with_suffix("")
            for path in (PACKAGE / room).rglob("*.py")
            if not path.name.startswith("_") or path.name == "__init__.py"
        )
        if not modules:
            continue
        body = [f"# naskd.{room}", "", f"{title}.", ""]
        for module in modules:
            dotted = ".".join(module.parts).removesuffix(".__init__")
            body += [f"::: {dotted}", "    options:", "      heading_level: 2", ""]
        pages[f"reference/api/{room}.md"] = "\n".join(body)
    return pages


def generated() -> dict[str, str]:
    """All pages that are written from the code, by their path in the site."""
    return {"reference/command-line.md": command_line(), **methods(), **python_api()}


def navigation(text: str, target: Path) -> str:
    """The site's configuration with all pages of a folder where it says ``# pages of FOLDER/``."""

    def listed(match: re.Match[str]) -> str:
        indent, folder = " " * (len(match[1]) + 4), match[3]
        pages = sorted(path for path in (target / "docs" / folder).glob("*.md") if path.name != "index.md")
        titles = {path: path.read_text().partition("\n")[0].lstrip("# ") for path in pages}
        entries = [f"{indent}- {folder}index.md"]
        entries += [f"{indent}- {title!r}: {folder}{path.name}" for path, title in titles.items()]
        return "\n".join([f"{match[1]}- {match[2]}:", *entries])

    return re.sub(r"(?m)^( *)- ([\w ]+): # pages of ([\w/]+/)$", listed, text)


def write(target: Path) -> None:
    """Writes the folder that the site generator reads, from nothing."""
    site = target / "docs"
    shutil.rmtree(site, ignore_errors=True)
    for path in sorted(DOCS.rglob("*")):
        place = site / path.relative_to(DOCS)
        if path.suffix == ".md":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(filled(path.read_text()))
        elif path.is_file() and path.suffix in (".json", ".png", ".svg", ".ipynb"):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    for page, text in generated().items():
        place = site / page
        if place.exists():
            raise FileExistsError(f"{page} is written from the code; there must be no such file in docs/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (target / "mkdocs.yml").write_text(navigation((DOCS / "site.yml").read_text(), target))


if __name__ == "__main__":
    refresh() if sys.argv[1:] == ["--tables"] else write(Path(sys.argv[1]))
