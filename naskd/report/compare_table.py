"""Runs side by side in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report.units import macs, percent


def compare_table(comparison: Mapping[str, Any]) -> Group:
    """A row for each run, the best front first.

    Args:
        comparison: Of :func:`naskd.runs.comparing.compare`.
    """
    rows = sorted(comparison["runs"], key=lambda row: -row["hypervolume"])
    columns = {
        "hypervolume": [f"{row['hypervolume']:.4f}" for row in rows],
        "front": [str(len(row["front"])) for row in rows],
        "best val acc": [percent(row["best_accuracy"]) for row in rows],
        "trials": [str(row["complete"]) for row in rows],
        "stopped": [str(row["stopped"]) for row in rows if any(r["stopped"] for r in rows)],
        "spent": [macs(row["train_macs"]) for row in rows],
        "with teacher": [macs(row["train_macs_with_teachers"]) for row in rows if _has_teacher(rows)],
        "to the level": [macs((row["to_level"] or {}).get("train_macs")) for row in rows],
    }
    shown = {title: cells for title, cells in columns.items() if cells}
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("run", min_width=12, overflow="fold")
    for title in shown:
        table.add_column(title, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        table.add_row(row["name"], *(cells[number] for cells in shown.values()))
    reference = ", ".join(f"{name} {value:g}" for name, value in comparison["reference_point"].items())
    return Group(
        Text("Runs compared", style="bold"),
        table,
        Text(f"reference point of the hypervolume: {reference}", style="dim"),
        Text(
            f"to the level: training of trials until a hypervolume of {comparison['level']:.4f}, which all have",
            style="dim",
        ),
        *(Text(f"warning: {warning}", style="yellow") for warning in comparison["warnings"]),
    )


def _has_teacher(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["train_macs_with_teachers"] > row["train_macs"] for row in rows)
