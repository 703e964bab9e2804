"""A folder of runs as a page, for ``naskd serve``: how far each is, with a link to its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from naskd.report.html import plain
from naskd.report.units import FORMATS

SCRIPTS = ("numbers.js", "draw.js", "save.js", "runs.js")
"""Files of the page's one script, in their order."""


def page_data(rows: Sequence[Mapping[str, Any]], title: str) -> dict[str, Any]:
    """What the page draws, in plain JSON.

    Args:
        rows: As of :func:`naskd.runs.listing.list_runs`, in the order in which they are shown.
        title: What they are.
    """
    runs = [{**row, "folder": Path(row["path"]).name} for row in rows]
    clean = plain({"title": title, "runs": runs, "formats": FORMATS, "measures": {}, "study": "runs"})
    assert isinstance(clean, dict)
    return clean
