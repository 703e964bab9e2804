"""What final trainings say together: the means of each design, the front of the means, and who matches the teacher."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
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
        config_id: Of the trial's design, as its ledger names it; empty where that is not known.
    """

    number: int
    config: TrialConfig
    val_accuracy: float | None
    results: Sequence[Mapping[str, Any]]
    config_id: str = ""


def summarised(
    trained: Sequence[TrainedDesign],
    context: StudyContext,
    n_test: int,
    chance: float,
    teacher_accuracy: Callable[[nn.Module], float],
) -> dict[str, Any]:
    """The rows of the designs, the cheapest first, and the comparison with the teacher.

    Args:
        trained: The designs.
        context: The study's.
        n_test: Number of test images.
        chance: Test accuracy of who always says the most frequent class.
        teacher_accuracy: On the test images as teachers see them, a fraction.

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
        record.update(_compared(rows, best, context, n_test, chance, teacher_accuracy))
    return record


def _row(design: TrainedDesign, context: StudyContext) -> dict[str, Any]:
    results = design.results
    accuracies = [result["test_accuracy"] for result in results]
    return {
        "number": design.number,
        "config_id": design.config_id,
        "macs": results[0]["macs"],
        "n_params": results[0]["n_params"],
        **_values(design, context),
        "val_accuracy_search": design.val_accuracy,
        "val_accuracy_mean": statistics.fmean(result["val_accuracy"] for result in results),
        "test_accuracy_mean": statistics.fmean(accuracies),
        "test_accuracy_sd": statistics.stdev(accuracies) if len(results) > 1 else None,
        "test_accuracies": accuracies,
        **_balanced(results),
        "epochs": design.config.training.epochs,
        "n": len(results),
        "files": [result["file"] for result in results],
    }


def _balanced(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over the seeds, where it was measured."""
    found = [result["test_balanced_accuracy"] for result in results if "test_balanced_accuracy" in result]
    return {"test_balanced_accuracy_mean": statistics.fmean(found)} if len(found) == len(results) else {}


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
    chance: float,
    teacher_accuracy: Callable[[nn.Module], float],
) -> dict[str, Any]:
    """A teacher's test accuracy, and the cheapest design whose mean is within its standard error.

    Beside a teacher who may as well guess, no design is named: any would match it.
    """
    source = context.sources.online(teacher)
    assert isinstance(source.network, nn.Module)
    found = teacher_accuracy(source.network)
    error = standard_error(found, n_test)
    at_chance = is_at_chance(found, n_test, chance)
    compared: dict[str, Any] = {
        "teacher_test_accuracy": found,
        "teacher_test_standard_error": error,
        "teacher_val_accuracy": context.resources.store.manifest(teacher.artifact_id)["val_accuracy"],
        "teacher_at_chance": at_chance,
        "teacher_macs": source.macs,
    }
    good = [row for row in rows if row["test_accuracy_mean"] >= found - error]
    if good and not at_chance:
        row = min(good, key=lambda row: row["macs"])
        compared["matches_teacher"] = {
            "number": row["number"],
            "macs": row["macs"],
            "times_cheaper": source.macs / row["macs"],
        }
    return compared


def standard_error(accuracy: float, n: int) -> float:
    """Of an accuracy on `n` images, after Agresti & Coull (The American Statistician, 1998): never 0.

    Two images that are right and two that are wrong are added, so that ``n`` of ``n`` are no certainty.
    """
    shrunk = (accuracy * n + 2) / (n + 4)
    return math.sqrt(shrunk * (1 - shrunk) / (n + 4))


def is_at_chance(accuracy: float, n: int, chance: float) -> bool:
    """Whether an accuracy on `n` images is below chance, or within one standard error of it."""
    return accuracy - standard_error(accuracy, n) <= chance


def doubtful(record: Mapping[str, Any], context: StudyContext, chance: float) -> list[str]:
    """Networks that may as well guess on the test images though they do not on others, a sentence each.

    Args:
        record: Of a retraining: its designs, and the teacher.
        context: The study's, with the validation images.
        chance: Test accuracy of who always says the most frequent class.
    """
    n_test, val = record["n_test"], context.resources.data.val
    measured = [
        (f"Trial {row['number']}", row["test_accuracy_mean"], row["val_accuracy_mean"])
        for row in record["designs"]
    ]
    if record["teacher_test_accuracy"] is not None:
        measured.append(("The teacher", record["teacher_test_accuracy"], record["teacher_val_accuracy"]))
    val_chance = int(torch.bincount(val.labels.cpu()).max()) / len(val)
    return [
        f"{name} is right on {on_test:.1%} of the test images, which is no better than chance, and on {on_val:.1%} of "
        "the validation images. Are the test images and their classes the right ones?"
        for name, on_test, on_val in measured
        if is_at_chance(on_test, n_test, chance) and not is_at_chance(on_val, len(val), val_chance)
    ]


def _last(value: float | None, sign: int) -> float:
    """A key by which the best value comes first, and one that is not known last."""
    return math.inf if value is None else sign * value
