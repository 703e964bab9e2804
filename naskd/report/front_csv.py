"""The front for spreadsheets and scripts: comma-separated, accuracies as fractions."""

import csv
import io
import json
from typing import Any

from naskd.report import summary
from naskd.report.record import Record, front, objectives, retrained, trials
from naskd.report.units import finite
from naskd.spec.secrets import redacted
from naskd.spec.visible import visible

_METRICS = ("val_accuracy", "macs", "n_params", "size_bytes")
_FORMULA = ("=", "+", "-", "@")
_REST = ("config_id", "seed", "wall_seconds", "train_macs", "teacher_agreement")


def front_csv(record: Record, *, all_trials: bool = False) -> str:
    """The front as CSV (RFC 4180), a header and one row a trial, cheapest first.

    Objectives beyond accuracy, MACs, parameters and size have columns of their own. The last column,
    ``config``, is the whole design as JSON. A value that is missing or NaN is an empty field, but a missing seed is
    ``none``: readers take a column of whole numbers with gaps as floats, which round 64 bits. A text that a spreadsheet
    would take for a formula has an apostrophe before it. ``trained_in`` is the trial whose training gives a design that
    had none of its own.

    Args:
        record: A run record.
        all_trials: Every trial with its state, by number, instead of the front.
    """
    metrics = list(dict.fromkeys([*_METRICS, *(objective.name for objective in objectives(record))]))
    columns = [
        "number",
        *(("state", "reason", "on_front") if all_trials else ()),
        *metrics,
        *(name for name in _REST if name not in metrics),
        "trained_in",
        "replicates",
        "replicate_mean",
        "replicate_sd",
        "expected_accuracy",
        "expected_sd",
        "test_accuracy_mean",
        "test_accuracy_sd",
        "test_seeds",
        "test_epochs",
        "student",
        "taught_by",
        "config",
    ]
    designs = retrained(record)
    chosen = sorted(trials(record), key=lambda t: t.get("number", -1)) if all_trials else front(record)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    for trial in chosen:
        replicates, test = trial.get("replicates") or {}, designs.get(trial.get("number", -1), {})
        config, expected = trial.get("config"), trial.get("expected") or {}
        row: dict[str, Any] = {
            **trial,
            "replicates": replicates.get("n"),
            "replicate_mean": replicates.get("mean"),
            "replicate_sd": replicates.get("sd"),
            "expected_accuracy": expected.get("mean"),
            "expected_sd": expected.get("sd"),
            "test_accuracy_mean": test.get("test_accuracy_mean"),
            "test_accuracy_sd": test.get("test_accuracy_sd"),
            "test_seeds": test.get("n"),
            "test_epochs": test.get("epochs"),
            "student": summary.student(config),
            "taught_by": summary.taught_by(config) if config else "",
            "config": json.dumps(config, sort_keys=True) if config else "",
        }
        writer.writerow({name: _cell(name, row.get(name)) for name in columns})
    return out.getvalue()


def _cell(name: str, value: Any) -> Any:
    if name == "seed":
        return "none" if value in (None, "") else value
    if isinstance(value, float) and finite(value) is None:
        return ""
    if isinstance(value, str):
        value = visible(redacted(value))
        # A spreadsheet would compute it.
        return f"'{value}" if value.startswith("\t") or value.lstrip().startswith(_FORMULA) else value
    return value
