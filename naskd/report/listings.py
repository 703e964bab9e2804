"""Small tables of what a study would cost, what a space holds and which methods are registered."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report.units import count, duration, finite, macs, percent, size


def dry_run_table(estimate: Mapping[str, Any]) -> Group:
    """What a search would cost.

    Args:
        estimate: Names and numbers. A name's ending says its unit: ``seconds``, ``macs``, ``bytes``,
            ``accuracy`` or ``fraction``; others are counts or text. Nested mappings become sections of their
            own, a mapping of numbers with a ``min`` and a ``max`` becomes a range.
    """
    # Where nothing is to be said of the machine, there is no row of it.
    told = {name: value for name, value in estimate.items() if name != "busy" or value}
    return _described("What this search would cost", told)


def space_table(space: Mapping[str, Any]) -> Group:
    """What a search space holds.

    Args:
        space: As for :func:`dry_run_table`; ``parameters``, a sequence of mappings with ``name`` and its
            range or choices, becomes a table.
    """
    return _described("Search space", space)


def methods_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """The registered methods.

    Args:
        rows: Mappings with the same keys, such as ``kind``, ``name``, ``title``, ``paper``; a key is a
            column.
    """
    return _listing(list(rows))


def _described(title: str, data: Mapping[str, Any]) -> Group:
    parts: list[Any] = [Text(title, style="bold"), _grid(data)]
    for name, value in data.items():
        if isinstance(value, Mapping) and not _is_range(value):
            parts += [Text(), Text(_words(name), style="bold"), _grid(value)]
        elif _is_rows(value):
            parts += [Text(), Text(_words(name), style="bold"), _listing(value)]
    return Group(*parts)


def _grid(data: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in data.items():
        if _is_range(value) or not (isinstance(value, Mapping) or _is_rows(value)):
            grid.add_row(Text(_words(name)), Text(_value(name, value)))
    return grid


def _listing(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        # The last column is the longest, a paper or a list of choices: it gives way first.
        table.add_column(
            _words(name), overflow="fold", no_wrap=False, ratio=1 if index == len(names) - 1 else None
        )
    previous = None
    for row in rows:
        cells = [Text(_value(name, row.get(name))) for name in names]
        if names and cells and cells[0].plain == previous:
            cells[0] = Text("")
        elif cells:
            previous = cells[0].plain
        table.add_row(*cells)
    return table


def _is_range(value: Any) -> bool:
    return isinstance(value, Mapping) and {"min", "max"} <= set(value)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _value(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(_range(name, value)) if _is_range(value) else str(dict(value))
    if isinstance(value, list | tuple):
        return ", ".join(_value(name, item) for item in value)
    if finite(value) is None:
        return str(value)
    for ending, show in (
        ("seconds", duration),
        ("bytes", size),
        ("accuracy", percent),
        ("fraction", percent),
    ):
        if str(name).endswith(ending):
            return show(value)
    if str(name).endswith("macs"):
        return macs(value)
    return count(value) if abs(value) >= 1e5 else f"{value:.6g}"


def _range(name: str, value: Mapping[str, Any]) -> Iterator[str]:
    yield f"{_value(name, value['min'])} to {_value(name, value['max'])}"
    yield from (f"{key} {_value(name, item)}" for key, item in value.items() if key not in ("min", "max"))
