"""Reading a run record: which trials are on the front, which objectives are costs."""

import math
from collections.abc import Mapping
from typing import Any

from naskd.report.units import finite
from naskd.spec.errors import InputError
from naskd.spec.pareto import non_dominated

Record = Mapping[str, Any]
Trial = Mapping[str, Any]


def trials(record: Record) -> list[Trial]:
    """All trials of the record, as they come."""
    return list(record.get("trials") or ())


def costs(record: Record) -> list[str]:
    """Names of the objectives that are costs, in the study's order; ``macs`` when the record names none."""
    names = [objective.get("name") for objective in record.get("objectives") or ()]
    return [str(name) for name in names if name and name != "val_accuracy"] or ["macs"]


def cost_key(record: Record) -> str:
    """The cost that reports draw first: ``macs`` where it is an objective, else the first cost."""
    names = costs(record)
    return "macs" if "macs" in names else names[0]


def front(record: Record) -> list[Trial]:
    """The trials on the front, cheapest first.

    A record of the front only has neither marks nor states: all its trials are the front. Where there are
    states but no marks, the front is found among the complete trials.
    """
    everything = trials(record)
    if any("on_front" in trial for trial in everything):
        chosen = [trial for trial in everything if trial.get("on_front")]
    elif any("state" in trial for trial in everything):
        names = ["val_accuracy", *costs(record)]
        complete = [trial for trial in everything if is_complete(trial)]
        points = [
            [math.nan if (value := finite(trial.get(name))) is None else value for name in names]
            for trial in complete
        ]
        mask = non_dominated(points, [name == "val_accuracy" for name in names])
        chosen = [trial for trial, on_front in zip(complete, mask, strict=True) if on_front]
    else:
        chosen = everything
    key = cost_key(record)

    def order(trial: Trial) -> tuple[float, float]:
        cost, accuracy = finite(trial.get(key)), finite(trial.get("val_accuracy"))
        return (math.inf if cost is None else cost, 0.0 if accuracy is None else -accuracy)

    return sorted(chosen, key=order)


def is_complete(trial: Trial) -> bool:
    """Whether the trial ended as it should; a record of the front only does not say, and holds no others."""
    return bool(trial.get("state", "COMPLETE") == "COMPLETE")


def trial_by_number(record: Record, number: int) -> Trial:
    """The trial called `number`.

    Raises:
        InputError: The record has no such trial.
    """
    for trial in trials(record):
        if trial.get("number") == number:
            return trial
    numbers = sorted(trial.get("number", -1) for trial in trials(record))
    allowed = f"{numbers[0]} to {numbers[-1]}" if numbers else "none, the run has no trials yet"
    raise InputError(f"trial {number} is not in this run; its trials: {allowed}")


def retrained(record: Record) -> dict[int, Mapping[str, Any]]:
    """Retrained designs by the number of their trial; empty before ``naskd retrain``."""
    designs = (record.get("retrained") or {}).get("designs") or ()
    return {design["number"]: design for design in designs if "number" in design}
