"""The registered methods as a table."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text


def methods_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """The registered methods.

    Args:
        rows: Mappings with the same keys, such as ``kind``, ``name``, ``title``, ``paper``; a key is a column. What the
            first one says of several rows in a row is written once.
    """
    listed = list(rows)
    names = list(dict.fromkeys(name for row in listed for name in row))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        # The last column is the longest, a paper: it gives way first.
        table.add_column(name, overflow="fold", no_wrap=False, ratio=1 if index == len(names) - 1 else None)
    previous = None
    for row in listed:
        cells = [Text(str(row.get(name, ""))) for name in names]
        if cells and cells[0].plain == previous:
            cells[0] = Text("")
        elif cells:
            previous = cells[0].plain
        table.add_row(*cells)
    return table
