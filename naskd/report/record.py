"""Reading a run record: which trials are on the front, which objectives are costs."""

import math
from collections.abc import Mapping
from typing import Any

from naskd.report.units import finite
from naskd.spec.errors import InputError
from naskd.spec.objectives import ACCURACY, OBJECTIVES, Objective, cost_of, described

Record = Mapping[str, Any]
Trial = Mapping[str, Any]


def trials(record: Record) -> list[Trial]:
    """All trials of the record, as they come."""
    return list(record.get("trials") or ())


def objectives(record: Record) -> list[Objective]:
    """The objectives as the record describes them, in the study's order; accuracy and MACs when it names none."""
    found = [described(data) for data in record.get("objectives") or () if data.get("name")]
    return found if any(o.name != ACCURACY for o in found) else [OBJECTIVES[ACCURACY], OBJECTIVES["macs"]]


def costs(record: Record) -> list[Objective]:
    """The objectives beside accuracy, in the study's order."""
    return [objective for objective in objectives(record) if objective.name != ACCURACY]


def other_costs(record: Record) -> list[Objective]:
    """Those that tables do not show anyway, as they do MACs and parameters."""
    return [objective for objective in costs(record) if objective.name not in ("macs", "n_params")]


def cost(record: Record) -> Objective:
    """The one that reports set against accuracy; see :func:`~naskd.spec.objectives.cost_of`."""
    return cost_of(objectives(record))


def usable(objective: Objective, value: Any) -> float | None:
    """A trial's value of an objective as a float, or None where it has none that its scale can show."""
    number = finite(value)
    return None if number is None or (objective.scale == "log" and number <= 0) else number


def front(record: Record) -> list[Trial]:
    """The trials on the front, cheapest first (or best, where the objective beside accuracy is maximised).

    A record of the front only has neither marks nor states: all its trials are the front. Where there are
    states but no marks, the front is found among the complete trials.
    """
    everything = trials(record)
    if any("on_front" in trial for trial in everything):
        chosen = [trial for trial in everything if trial.get("on_front")]
    elif any("state" in trial for trial in everything):
        from naskd.spec.pareto import non_dominated  # not at the top: most records say what is on the front

        axes = [OBJECTIVES[ACCURACY], *costs(record)]
        complete = [trial for trial in everything if is_design(trial)]
        points = [
            [math.nan if (value := finite(trial.get(axis.name))) is None else value for axis in axes]
            for trial in complete
        ]
        mask = non_dominated(points, [axis.maximise for axis in axes])
        chosen = [trial for trial, on_front in zip(complete, mask, strict=True) if on_front]
    else:
        chosen = everything
    first = cost(record)

    def order(trial: Trial) -> tuple[float, float]:
        value, accuracy = finite(trial.get(first.name)), finite(trial.get(ACCURACY))
        return (math.inf if value is None else first.sign * value, 0.0 if accuracy is None else -accuracy)

    return sorted(chosen, key=order)


def chosen(trial: Trial) -> dict[str, Any]:
    """The parameters of a trial; without those that its design had no use for, where that is known."""
    unused = (trial.get("unused") or {}).get("design", ())
    return {name: value for name, value in (trial.get("parameters") or {}).items() if name not in unused}


def is_complete(trial: Trial) -> bool:
    """Whether the trial ended as it should; a record of the front only does not say, and holds no others."""
    return bool(trial.get("state", "COMPLETE") == "COMPLETE")


def is_design(trial: Trial) -> bool:
    """Whether a trial stands for its design: complete, and the first of its design's trainings."""
    return is_complete(trial) and trial.get("replicate_of") is None


def trained_in(trial: Trial) -> str:
    """Such as ``trained in trial 3``, of a design of another trial's training; empty of any other."""
    other = trial.get("trained_in")
    return "" if other is None else f"trained in trial {other}"


def training_seconds(record: Record, trial: Trial) -> float | None:
    """Of a trial's whole training, the part of the paused trial included with which it goes on.

    None of a design that was trained in another trial, as where that is not known.
    """
    if trial.get("trained_in") is not None:
        return None
    parts, at, by_number = (
        [finite(trial.get("wall_seconds"))],
        trial,
        {t.get("number"): t for t in trials(record)},
    )
    while (before := at.get("continues")) is not None:
        at = by_number.get(before, {})
        parts.append(finite(at.get("wall_seconds")))
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


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
    """Retrained designs by the number of their trial; empty before ``naskd retrain``.

    Of those that the last retraining left out, the one before says what is known; each has its ``epochs``.
    """
    found = record.get("retrained") or {}
    designs = [*(found.get("designs") or ()), *(found.get("earlier") or ())]
    epochs = {"epochs": found.get("epochs")}
    return {design["number"]: {**epochs, **design} for design in reversed(designs) if "number" in design}


def how_retrained(design: Mapping[str, Any]) -> str:
    """Such as ``2 seeds of 30 epochs``."""
    n, epochs = design.get("n"), design.get("epochs")
    seeds = f"{n} seed{'' if n == 1 else 's'}"
    return seeds if epochs is None else f"{seeds} of {epochs} epoch{'' if epochs == 1 else 's'}"
