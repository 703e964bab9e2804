"""The runs of a folder, in the terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report.footer import Footer
from naskd.report.units import percent, size


def runs_table(rows: Sequence[Mapping[str, Any]], title: str) -> Group:
    """One line a run, in the order given; below, why some cannot be read.

    Args:
        rows: As of :func:`naskd.runs.listing.list_runs`.
        title: What they are.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    for name in ("trials", "front", "best val acc", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last change", no_wrap=True)
    for row in rows:
        asked = row["asked"]
        table.add_row(
            *map(
                Text,
                (
                    row["path"],
                    row["state"],
                    str(row["trials"]) if asked is None else f"{row['trials']} of {asked}",
                    f"{row['front']}{', tested' if row['retrained'] else ''}",
                    percent(row["best"]),
                    size(row["size_bytes"]),
                    datetime.fromtimestamp(row["changed"]).strftime("%Y-%m-%d %H:%M"),
                ),
            )
        )
    if not rows:
        return Group(Text(title, style="bold"), Text("no runs"))
    count = f"{len(rows)} {'run' if len(rows) == 1 else 'runs'}"
    total = sum(row["size_bytes"] for row in rows)
    problems = [Text(f"{row['path']}: {row['problem']}") for row in rows if row["problem"]]
    return Group(Text(title, style="bold"), table, *problems, Footer([f"{count}, {size(total)}"]))
