"""Runs side by side as one self-contained page: their fronts, what arms attain over their seeds, and how they grew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naskd.report.html import assembled, plain
from naskd.report.units import FORMATS, axis_label
from naskd.spec.objectives import ACCURACY, cost_of, described
from naskd.spec.outputs import writable
from naskd.store.files import replacing

SCRIPTS = ("numbers.js", "draw.js", "save.js", "compare.js")
"""Files of the page's one script, in their order."""


def write_html(comparison: Mapping[str, Any], path: str | Path) -> None:
    """Write the page of a comparison.

    Args:
        comparison: Of :func:`naskd.runs.comparing.compare`.
        path: Replaced in one step; see :func:`~naskd.store.files.replacing`.
    """
    with replacing(writable(Path(path))) as part:
        part.write_text(page(comparison), encoding="utf-8")


def page(comparison: Mapping[str, Any]) -> str:
    """The page as text."""
    n = len(comparison["runs"])
    return assembled(f"{n} runs compared", page_data(comparison), SCRIPTS)


def page_data(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What the page draws, in plain JSON."""
    axes = [described(axis) for axis in comparison["objectives"]]
    data: dict[str, Any] = dict(comparison)
    data["formats"] = FORMATS
    others = [axis.name for axis in axes if axis.name != ACCURACY]
    data["costs"] = sorted(
        others, key=lambda name: name != cost_of(axes).name
    )  # the page opens with the first
    data["measures"] = {
        axis.name: {**axis.describe(), "label": axis_label(axis.title, axis.unit)} for axis in axes
    }
    clean = plain(data)
    assert isinstance(clean, dict)
    return clean
