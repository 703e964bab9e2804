"""What a notebook shows of a run and of its front."""

from html import escape

from naskd.report import summary
from naskd.report.record import Record, Trial, costs, front
from naskd.report.units import measure, percent, percent_with_sd


def front_html(record: Record) -> str:
    """The front as a table of HTML, cheapest first.

    Args:
        record: A run record, of all trials or of the front only.
    """
    lines = ["<table><thead><tr>", *(f"<th>{escape(title)}</th>" for title in _titles(record))]
    lines.append("</tr></thead><tbody>")
    for trial in front(record):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in _cells(record, trial))
        lines.append(f"<tr>{cells}</tr>")
    return "".join([*lines, "</tbody></table>"])


def front_text(record: Record) -> str:
    """The front as lines of text; see :func:`front_html`."""
    titles = _titles(record)[2:-2]
    lines = [f"<front of {record.get('study', '')!r}, {len(front(record))} designs, cheapest first>"]
    for trial in front(record):
        number, accuracy, *values, student, taught_by = _cells(record, trial)
        said = [accuracy, *(f"{value} {title}" for value, title in zip(values, titles, strict=True))]
        lines.append(f"trial {number}: {', '.join(said)}, {student}, taught by {taught_by}")
    return "\n".join(lines)


def _titles(record: Record) -> list[str]:
    expected = ("expected",) if _expects(record) else ()
    return [
        "trial",
        "validation accuracy",
        *expected,
        *(axis.title for axis in costs(record)),
        "student",
        "taught by",
    ]


def _expects(record: Record) -> bool:
    return any(trial.get("expected") for trial in front(record))


def _cells(record: Record, trial: Trial) -> list[str]:
    config, expected = trial.get("config"), trial.get("expected") or {}
    return [
        str(trial.get("number", "")),
        percent(trial.get("val_accuracy")),
        *((percent_with_sd(expected.get("mean"), expected.get("sd")),) if _expects(record) else ()),
        *(measure(trial.get(axis.name), axis.unit) for axis in costs(record)),
        summary.student(config),
        summary.taught_by(config) if config else "",
    ]


def run_html(record: Record, path: str) -> str:
    """A run in a notebook: what it is, how far it is, and its front.

    Args:
        record: A run record.
        path: Of the run directory.
    """
    counts = record.get("counts") or {}
    said = [f"{counts.get('complete', 0)} trials complete"]
    others = ("failed", "stopped", "turned_away", "running")
    said += [f"{counts[name]} {name.replace('_', ' ')}" for name in others if counts.get(name)]
    head = f"<p><b>{escape(str(record.get('study', '')))}</b> in <code>{escape(path)}</code>: {', '.join(said)}</p>"
    return head + front_html(record)
