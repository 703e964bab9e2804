"""What a latency profile says, and latencies, as tables."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from naskd.report.units import count, percent

NEAR = 0.1
"""Share of a latency that a prediction is to be within."""


def profile_table(profile: Mapping[str, Any], errors: Sequence[float]) -> RenderableType:
    """How a profile was made and how far it is off.

    Args:
        profile: As its file holds it.
        errors: Of the held-out students, as shares of their latencies; at least one.
    """
    table = Table.grid(padding=(0, 2))
    ordered = sorted(errors)
    near = sum(error <= NEAR for error in errors)
    ninety = ordered[math.ceil(0.9 * len(ordered)) - 1]
    latencies = [student["measured_ms"] for student in profile["held_out"]]
    options = ", ".join(f"{name}={value}" for name, value in profile["options"].items())
    rows = (
        ("device", f"{profile['device']} ({options})" if options else profile["device"]),
        ("hardware", profile["hardware"]),
        ("runtime", profile["runtime"]),
        ("fitted to", f"{profile['n_students']} students, {profile['rounds']} rounds"),
        ("held out", f"{len(errors)} students of {min(latencies):.3g} to {max(latencies):.3g} ms"),
        (f"within {percent(NEAR, 0)}", f"{near} of {len(errors)}"),
        ("error", f"median {percent(statistics.median(errors), 1)}, 90% within {percent(ninety, 1)}"),
        (
            "noise",
            f"90% of the students within {percent(profile['noise'], 1)} from one half of the rounds to the other",
        ),
    )
    for name, value in rows:
        table.add_row(name, str(value))
    return table


def latency_table(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Latencies of students.

    Args:
        found: As :func:`naskd.runs.profiling.time_students` gives them.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("file", "MACs", "latency"):
        table.add_column(name, justify="left" if name == "file" else "right")
    for row in found:
        table.add_row(row["file"], count(row["macs"]), f"{row['latency_ms']:.4g} ms")
    return table
