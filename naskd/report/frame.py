"""A run as a table of pandas: one row a trial."""

from typing import TYPE_CHECKING, Any

from naskd.report import summary
from naskd.report.record import Record, chosen, objectives, retrained, trials

if TYPE_CHECKING:
    import pandas

_METRICS = ("val_accuracy", "best_val_accuracy", "macs", "n_params", "size_bytes")
_REST = ("train_macs", "spent_macs", "wall_seconds", "teacher_agreement", "replicate_of", "config_id", "seed")


def to_frame(record: Record) -> "pandas.DataFrame":
    """All trials by number.

    Columns: ``state``, ``reason``, ``on_front``; metrics and objectives; where a design was trained with several seeds
    ``replicates`` and ``replicate_sd``: of how many trainings the objectives of its first trial are the means, and how
    their accuracies vary; ``expected_accuracy`` and ``expected_sd``, of each design, its luck taken off;
    ``measure_<name>`` of what a scheme says of its student; ``test_accuracy_mean`` and ``test_accuracy_sd`` where a
    design was retrained; costs of the training; ``epochs`` that it has trained; ``config_id`` and ``seed``, a whole
    number; ``student`` and ``taught_by`` in words; and ``params_<name>`` for each parameter of the space, as Optuna
    calls them. What a trial does not have is missing, and so is a parameter that its design had no use for; trials of
    earlier versions do not say which these were.

    Args:
        record: A run record of all trials.
    """
    import pandas

    metrics = dict.fromkeys([*_METRICS, *(objective.name for objective in objectives(record))])
    designs, again = retrained(record), any(trial.get("replicates") for trial in trials(record))
    rows = []
    for trial in trials(record):
        config = trial.get("config")
        row: dict[str, Any] = {
            name: trial.get(name) for name in ("number", "state", "reason", "on_front", *metrics)
        }
        if again:
            seeds = trial.get("replicates") or {}
            row |= {"replicates": seeds.get("n"), "replicate_sd": seeds.get("sd")}
        expected = trial.get("expected") or {}
        row |= {"expected_accuracy": expected.get("mean"), "expected_sd": expected.get("sd")}
        row |= {f"measure_{name}": value for name, value in (trial.get("measures") or {}).items()}
        if designs:
            tested = designs.get(trial.get("number", -1), {})
            row |= {name: tested.get(name) for name in ("test_accuracy_mean", "test_accuracy_sd")}
        row |= {name: trial.get(name) for name in _REST}
        row["seed"] = int(trial["seed"]) if trial.get("seed") else None
        row["epochs"] = len(trial.get("curve") or ())
        row["student"] = summary.student(config) if config else None
        row["taught_by"] = summary.taught_by(config) if config else None
        row |= {f"params_{name}": value for name, value in chosen(trial).items()}
        rows.append(row)
    first = dict.fromkeys(name for row in rows for name in row if not name.startswith("params_"))
    parameters = dict.fromkeys(name for row in rows for name in row if name.startswith("params_"))
    columns = [*first, *parameters] or ["number"]
    # A seed has 64 bits: floats, which pandas takes for whole numbers with gaps, round it.
    whole = pandas.array([row["seed"] for row in rows], dtype="UInt64")
    frame = pandas.DataFrame({name: [row.get(name) for row in rows] for name in columns})
    if rows:
        frame["seed"] = whole
        frame["replicate_of"] = frame["replicate_of"].astype("Int64")
    return frame.set_index("number")
