"""One self-contained page: no network, no server, opens from the disk.

The page draws itself: hand-written SVG and one script, together a hundredth of the size of a plotting
library's bundle (plotly 4.8 MB, bokeh 1.3 MB), so that a report can be mailed and opens at once. What is in
the record reaches the page as JSON alone and is written with ``textContent`` only; the page's own policy lets
nothing run but that one script, by its hash, and lets nothing be fetched. Its images are those that it makes itself, to
be saved. Only a page that ``naskd serve`` sends may ask where it came from for newer data.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from naskd.report import summary
from naskd.report.record import (
    Record,
    Trial,
    cost,
    costs,
    front,
    is_design,
    objectives,
    retrained,
    trials,
    usable,
)
from naskd.report.units import FORMATS, axis_label, finite
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.outputs import writable
from naskd.spec.visible import encodable
from naskd.store.files import replacing
from naskd.study.residuals import IMPORTANCE_NEEDS, MIN_TRIALS, accuracy_residuals

_KEPT = (
    "study",
    "schema_version",
    "seed",
    "run",
    "objectives",
    "reference_point",
    "hypervolume",
    "train_macs",
    "train_macs_with_teachers",
    "bank",
    "warm_start",
    "images",
    "times",
    "unlabelled",
    "copies",
    "modality",
    "progress",
    "importance",
    "importance_floor",
    "importance_trials",
    "importance_by_cost",
    "teacher",
    "teachers",
    "provenance",
    "warnings",
    "counts",
    "environment",
)
SCRIPTS = (
    "numbers.js",
    "draw.js",
    "save.js",
    "record.js",
    "front.js",
    "budget.js",
    "details.js",
    "tables.js",
    "curves.js",
    "choices.js",
    "axes.js",
    "parallel.js",
    "slices.js",
    "page.js",
)
"""Files of the page's one script, in their order; a name that one declares is known in all after it."""
_EXACT = 2**53 - 1  # JavaScript's numbers are doubles


def write_html(record: Record, path: str | Path) -> None:
    """Write the report of a run.

    Args:
        record: A run record with all trials.
        path: Replaced in one step, so that a page that is being looked at is never half written; see
            :func:`~naskd.store.files.replacing`.
    """
    with replacing(writable(Path(path))) as part:
        part.write_text(page(record), encoding="utf-8")


def page(record: Record) -> str:
    """The report as text."""
    return assembled(title_of(record), page_data(record), SCRIPTS)


def title_of(record: Record) -> str:
    """Of a run's page."""
    return str(record.get("study", "study"))


def assembled(title: str, data: Mapping[str, Any], scripts: Sequence[str], *, live: bool = False) -> str:
    """A page that draws its data with a script.

    Args:
        title: Of the page.
        data: In JSON types.
        scripts: Files of the script, in their order.
        live: Whether it asks the server that sent it for newer data.
    """
    here = files("naskd.report")
    style = (here / "page.css").read_text(encoding="utf-8")
    source = script(scripts, live=live)
    policy = f"default-src 'none'; script-src {_source_hash(source)}; style-src {_source_hash(style)}; img-src blob:"
    if live:
        policy += "; connect-src 'self'"
    parts = {
        "title": html.escape(title),
        "policy": html.escape(policy),
        "style": style,
        "data": _script_safe(data),
        "script": source,
    }
    template = (here / "page.html").read_text(encoding="utf-8")
    # One pass, so that a study named {{script}} stays a name.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def script(names: Sequence[str] = SCRIPTS, *, live: bool = False) -> str:
    """A page's one script: all its files in one function, so that none of their names is the window's.

    The files are the body of ``drawPage(data)``, which may be called again with newer data; ``memory`` outlives that.
    """
    here = files("naskd.report")
    sources, follow = (
        "\n".join((here / name).read_text(encoding="utf-8") for name in some)
        for some in (names, ("live.js",) if live else ())
    )
    return (
        '"use strict";\n(() => {\nconst memory = new Map();\n'
        f"function drawPage(data) {{\n{sources}}}\n"
        'const given = JSON.parse(document.getElementById("data").textContent);\n'
        f"drawPage(given);\n{follow}}})();\n"
    )


def page_data(record: Record) -> dict[str, Any]:
    """What the page draws: the record in plain JSON, curves by column, each design in words."""
    on_front = [trial.get("number") for trial in front(record)]
    designs = retrained(record)
    data: dict[str, Any] = {name: record.get(name) for name in _KEPT}
    data["formats"] = FORMATS
    data["cost"], data["costs"] = cost(record).name, [objective.name for objective in costs(record)]
    # Of the objectives, and of what every trial has: all that the script knows of either.
    data["measures"] = {
        objective.name: {**objective.describe(), "label": axis_label(objective.title, objective.unit)}
        for objective in (*OBJECTIVES, *objectives(record))
    }
    data["front"] = on_front
    data["trials"] = [_trial(trial, trial.get("number") in on_front) for trial in trials(record)]
    data["residuals"], data["min_trials"] = _residuals(record), MIN_TRIALS
    data["importance_needs"] = IMPORTANCE_NEEDS
    data["retrained"] = None
    if designs:
        found = dict(record["retrained"])
        for part in ("designs", "earlier"):
            numbers = [design.get("number") for design in found.get(part) or ()]
            found[part] = [designs[number] for number in dict.fromkeys(numbers) if number in designs]
        data["retrained"] = found
    clean = plain(data)
    assert isinstance(clean, dict)
    return clean


def _trial(trial: Trial, on_front: bool) -> dict[str, Any]:
    config = trial.get("config")
    shown = {name: value for name, value in trial.items() if name not in ("curve", "environment")}
    shown["state"] = trial.get("state", "COMPLETE")
    shown["on_front"] = on_front
    shown["student"] = summary.student(config)
    shown["taught_by"] = summary.taught_by(config) if config else ""
    shown["choices"] = summary.choices(config)
    shown["curve"] = _columns(trial.get("curve") or ())
    return shown


def _columns(curve: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """A curve by column, in eight digits: pages stay small, and no percentage is rounded twice to another one."""
    names = dict.fromkeys(name for point in curve for name in point)
    return {
        name: [
            float(f"{value:.8g}") if isinstance(value, float) else value
            for value in (point.get(name) for point in curve)
        ]
        for name in names
    }


def _residuals(record: Record) -> dict[str, Any] | None:
    """Residuals of accuracy at equal cost by trial, or None where too few trials tell a trend."""
    first = cost(record)
    rows = [
        (trial.get("number"), value, accuracy)
        for trial in trials(record)
        if is_design(trial)
        and (value := usable(first, trial.get(first.name))) is not None
        and (accuracy := finite(trial.get("val_accuracy"))) is not None
    ]
    values = accuracy_residuals(
        [row[1] for row in rows], [row[2] for row in rows], logarithmic=first.scale == "log"
    )
    return None if values is None else {"number": [row[0] for row in rows], "value": values.round(6).tolist()}


def plain(value: Any) -> Any:
    """Plain JSON types.

    A number that is not finite becomes None, which JSON can carry; a seed becomes text, since a script would round its
    64 bits. Counts that are so large are rounded here, so that they stay numbers.
    """
    if isinstance(value, Mapping):
        return {
            str(name): str(item) if name == "seed" and isinstance(item, int) else plain(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return float(value)
    return value if value is None or isinstance(value, bool | int) else encodable(str(value))


def _script_safe(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _source_hash(source: str) -> str:
    """How a content security policy names an inline script or style (CSP level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
