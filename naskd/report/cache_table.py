"""What naskd keeps on a machine, in the terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report.footer import Footer
from naskd.report.units import size


def cache_table(entries: Sequence[Mapping[str, Any]], title: str) -> Group:
    """One line an entry, in the order given.

    Args:
        entries: As of :meth:`naskd.store.cache.Entry.to_dict`.
        title: What they are.
    """
    total = sum(entry["size_bytes"] for entry in entries)
    table = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for name in ("kind", "id"):
        table.add_column(name, no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    table.add_column("in", ratio=1, overflow="fold")
    for entry in entries:
        used = datetime.fromtimestamp(entry["last_use"]).strftime("%Y-%m-%d %H:%M")
        cells = (entry["kind"], entry["id"], size(entry["size_bytes"]), used, entry["place"])
        table.add_row(*(Text(str(cell)) for cell in cells))
    count = f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
    return Group(Text(title, style="bold"), table, Footer([f"{count}, {size(total)}"]))
