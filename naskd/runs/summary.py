"""What final trainings say together: the means of each design, the front of the means, and who matches the teacher."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from naskd.spec.design import TrialConfig
from naskd.spec.objectives import ACCURACY, OBJECTIVES, cost_of
from naskd.spec.pareto import front_mask
from naskd.trials.context import StudyContext
from naskd.trials.measures import objective_value
from naskd.trials.prerequisites import ArtifactRecipe


@dataclass(frozen=True)
class TrainedDesign:
    """A design with its final trainings.

    Args:
        number: Of its trial.
        config: As it was trained, with the final epochs.
        val_accuracy: What the search measured; None where that is not known.
        results: Of its trainings, one for each seed, at least one; as ``retrained.json`` keeps them.
    """

    number: int
    config: TrialConfig
    val_accuracy: float | None
    results: Sequence[Mapping[str, Any]]


def summarised(
    trained: Sequence[TrainedDesign],
    context: StudyContext,
    n_test: int,
    test_accuracy: Callable[[nn.Module], float],
) -> dict[str, Any]:
    """The rows of the designs, the cheapest first, and the comparison with the teacher.

    Args:
        trained: The designs.
        context: The study's.
        n_test: Number of test images.
        test_accuracy: That of a network, a fraction.

    Returns:
        Keys of ``retrained.json`` from ``designs`` on: see docs/reference/record.md.
    """
    names = context.resources.spec.objectives
    objectives = [OBJECTIVES[name] for name in names]
    cost = cost_of(objectives)
    rows = [_row(design, context) for design in trained]
    rows.sort(key=lambda row: (_last(row[cost.name], cost.sign), -row["test_accuracy_mean"]))
    points = [
        [row["test_accuracy_mean"] if name == ACCURACY else row[name] for name in names] for row in rows
    ]
    for row, on_front in zip(rows, front_mask(points, objectives), strict=True):
        row["on_front"] = bool(on_front)
    record: dict[str, Any] = {"designs": rows, "teacher_test_accuracy": None, "matches_teacher": None}
    store = context.resources.store
    there = [teacher for teacher in context.designs.teachers() if teacher.artifact_id in store]
    if there:
        # The one that the search knows as the best: to choose by test images would flatter it.
        best = max(there, key=lambda teacher: store.manifest(teacher.artifact_id)["val_accuracy"])
        record.update(_compared(rows, best, context, n_test, test_accuracy))
    return record


def _row(design: TrainedDesign, context: StudyContext) -> dict[str, Any]:
    results = design.results
    accuracies = [result["test_accuracy"] for result in results]
    return {
        "number": design.number,
        "macs": results[0]["macs"],
        "n_params": results[0]["n_params"],
        **_values(design, context),
        "val_accuracy_search": design.val_accuracy,
        "val_accuracy_mean": statistics.fmean(result["val_accuracy"] for result in results),
        "test_accuracy_mean": statistics.fmean(accuracies),
        "test_accuracy_sd": statistics.stdev(accuracies) if len(results) > 1 else None,
        "test_accuracies": accuracies,
        "n": len(results),
        "files": [result["file"] for result in results],
    }


def _values(design: TrainedDesign, context: StudyContext) -> dict[str, float | None]:
    """The study's objectives but accuracy; None for one that trainings of before did not compute."""
    values: dict[str, float | None] = {}
    for name in context.resources.spec.objectives:
        known = [result[name] for result in design.results if name in result]
        if OBJECTIVES[name].known == "before" and not known:
            values[name] = objective_value(OBJECTIVES[name], context.designs.measured(design.config))
        elif name != ACCURACY:
            same = len(set(known)) == 1  # counts stay whole numbers
            values[name] = (known[0] if same else statistics.fmean(known)) if known else None
    return values


def _compared(
    rows: Sequence[Mapping[str, Any]],
    teacher: ArtifactRecipe,
    context: StudyContext,
    n_test: int,
    test_accuracy: Callable[[nn.Module], float],
) -> dict[str, Any]:
    """A teacher's test accuracy, and the cheapest design whose mean is within its standard error."""
    source = context.sources.online(teacher)
    assert isinstance(source.network, nn.Module)
    found = test_accuracy(source.network)
    standard_error = math.sqrt(found * (1 - found) / n_test)
    compared: dict[str, Any] = {
        "teacher_test_accuracy": found,
        "teacher_test_standard_error": standard_error,
        "teacher_macs": source.macs,
    }
    good = [row for row in rows if row["test_accuracy_mean"] >= found - standard_error]
    if good:
        row = min(good, key=lambda row: row["macs"])
        compared["matches_teacher"] = {
            "number": row["number"],
            "macs": row["macs"],
            "times_cheaper": source.macs / row["macs"],
        }
    return compared


def _last(value: float | None, sign: int) -> float:
    """A key by which the best value comes first, and one that is not known last."""
    return math.inf if value is None else sign * value
