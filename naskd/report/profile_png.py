"""Predicted against measured latencies of held-out students, as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naskd.report.profile_table import NEAR
from naskd.report.units import percent
from naskd.spec.outputs import writable
from naskd.store.files import replacing


def write_profile_png(profile: Mapping[str, Any], path: Path) -> None:
    """Draw each held-out student of a profile, and the band of those that are predicted well.

    Args:
        profile: As its file holds it.
        path: What is written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = [(each["measured_ms"], each["predicted_ms"]) for each in profile["held_out"]]
    near = sum(abs(p / m - 1) <= NEAR for m, p in found)
    figure = Figure(figsize=(6, 6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ends = [0.9 * min(min(pair) for pair in found), 1.1 * max(max(pair) for pair in found)]
    axes.fill_between(ends, [(1 - NEAR) * end for end in ends], [(1 + NEAR) * end for end in ends], alpha=0.2)
    axes.plot(ends, ends, linewidth=1)
    measured, predicted = zip(*found, strict=True)
    axes.scatter(measured, predicted, s=14, color="black", zorder=3)
    axes.set(
        xscale="log",
        yscale="log",
        xlim=ends,
        ylim=ends,
        xlabel="measured latency in ms",
        ylabel="predicted latency in ms",
        title=f"{near} of {len(found)} held-out students within {percent(NEAR, 0)}",
    )
    with replacing(writable(path)) as part:
        figure.savefig(part, format="png")
