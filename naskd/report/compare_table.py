"""Runs side by side in the terminal."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from naskd.report.units import DASH, macs, measure, percent, volume
from naskd.spec.objectives import cost_of, described

PLACES = 6
"""Costs at which attained accuracies are shown, at most."""


def compare_table(comparison: Mapping[str, Any]) -> Group:
    """A row for each run, the best front first.

    Args:
        comparison: Of :func:`naskd.runs.comparing.compare`.
    """
    rows = sorted(comparison["runs"], key=lambda row: -row["hypervolume"])
    columns = {
        "hypervolume": [volume(row["hypervolume"]) for row in rows],
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
        *_arms(comparison),
        Text(f"reference point of the hypervolume: {reference}", style="dim"),
        Text(
            f"to the level: training of trials until a hypervolume of {volume(comparison['level'])}, which all have",
            style="dim",
        ),
        *(Text(f"warning: {warning}", style="yellow") for warning in comparison["warnings"]),
    )


def _arms(comparison: Mapping[str, Any]) -> list[Table | Text]:
    """What arms of several runs attain, a column each; nothing where every run is alone."""
    arms = [arm for arm in comparison["arms"] if len(arm["runs"]) > 1]
    name = cost_of([described(axis) for axis in comparison["objectives"]]).name
    cost = next(axis for axis in comparison["objectives"] if axis["name"] == name)
    if not arms:
        return []
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("by half of the runs (by all to by any)", overflow="fold")
    for arm in arms:
        table.add_column(f"{arm['name']}, {len(arm['runs'])} runs", justify="right", overflow="fold")
    volumes = [_levels(arm["hypervolume"], volume) for arm in arms]
    table.add_row("hypervolume", *volumes)
    bound = "at most" if cost["direction"] == "minimize" else "at least"
    for place in _places([arm["attainment"][cost["name"]]["cost"] for arm in arms]):
        cells = [_levels(_at(arm["attainment"][cost["name"]], place, cost), percent) for arm in arms]
        table.add_row(f"accuracy with {bound} {measure(place, cost['unit'])} {_word(cost)}".rstrip(), *cells)
    return [Text(""), Text("What arms attain over their seeds", style="bold"), table, Text("")]


def _word(cost: Mapping[str, Any]) -> str:
    return "" if measure(1e6, cost["unit"]).endswith(cost["title"]) else str(cost["title"])


def _places(costs: Sequence[Sequence[float]]) -> list[float]:
    """Costs to look at: the middle ones of :data:`PLACES` equal parts of all at which something changes."""
    known = sorted({cost for some in costs for cost in some})
    if len(known) <= PLACES:
        return known
    return [known[(2 * part + 1) * len(known) // (2 * PLACES)] for part in range(PLACES)]


def _at(attained: Mapping[str, Sequence[Any]], place: float, cost: Mapping[str, Any]) -> Mapping[str, Any]:
    """Levels at a cost: those of the last change that is no worse."""
    worse = operator.gt if cost["direction"] == "minimize" else operator.lt
    reached = [n for n, there in enumerate(attained["cost"]) if not worse(there, place)]
    return {level: attained[level][reached[-1]] if reached else None for level in ("any", "median", "all")}


def _levels(levels: Mapping[str, Any], said: Callable[[Any], str]) -> str:
    any_of, median, all_of = (
        DASH if levels[level] is None else said(levels[level]) for level in ("any", "median", "all")
    )
    return f"{median} ({all_of} to {any_of})"


def _has_teacher(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(row["train_macs_with_teachers"] > row["train_macs"] for row in rows)
