"""Several runs side by side: whose front is better, and how much training each needed for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from naskd.runs.run import Run, open_run
from naskd.spec.errors import InputError
from naskd.spec.objectives import ACCURACY, Objective, described
from naskd.spec.pareto import front_volume
from naskd.study.record import growing


def compare(runs: Sequence[Run | Path | str]) -> dict[str, Any]:
    """What runs of the same objectives have found, on one scale.

    Args:
        runs: At least two: runs, or their directories.

    Returns:
        ``objectives``; ``reference_point``: of all, in each objective the worst of the runs'; ``level``: the lowest
        hypervolume of the runs; ``warnings``; and ``runs``, each with its ``name``, ``complete``, ``stopped``,
        ``front`` (values of its points), ``hypervolume``, ``best_accuracy``, ``train_macs``,
        ``train_macs_with_teachers``, ``seconds``, ``progress`` (``train_macs``, ``seconds`` and ``hypervolume`` after
        each complete trial), and ``to_level``: ``train_macs`` and ``seconds`` by which it had the level.

    Raises:
        InputError: There are fewer than two, or their objectives differ.
    """
    opened = [run if isinstance(run, Run) else open_run(Path(run)) for run in runs]
    if len(opened) < 2:
        raise InputError("give at least two runs to compare")
    records = [run.to_dict(everything=True, with_importance=False) for run in opened]
    names = _names(opened)
    _check_objectives(dict(zip(names, records, strict=True)))
    axes = [described(data) for data in records[0]["objectives"]]
    reference = {
        axis.name: axis.sign * max(axis.sign * record["reference_point"][axis.name] for record in records)
        for axis in axes
    }
    rows = [_row(name, record, axes, reference) for name, record in zip(names, records, strict=True)]
    level = min(row["hypervolume"] for row in rows)
    for row in rows:
        row["to_level"] = next((p for p in row["progress"] if p["hypervolume"] >= level > 0), None)
    return {
        "objectives": records[0]["objectives"],
        "reference_point": reference,
        "level": level,
        "warnings": _warnings(names, opened),
        "runs": rows,
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """Of their directories; the whole path where two have one name.

    Raises:
        InputError: A run is given twice.
    """
    paths = [run.path.resolve() for run in runs]
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise InputError(f"given twice: {', '.join(twice)}")
    names = [path.name for path in paths]
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs, strict=True)]


def _check_objectives(records: Mapping[str, Mapping[str, Any]]) -> None:
    said = {name: [axis["name"] for axis in record["objectives"]] for name, record in records.items()}
    first, wanted = next(iter(said.items()))
    for name, found in said.items():
        if found != wanted:
            raise InputError(
                f"runs of different objectives do not compare: {first} has {', '.join(wanted)}; "
                f"{name} has {', '.join(found)}"
            )


def _row(
    name: str, record: Mapping[str, Any], axes: Sequence[Objective], reference: Mapping[str, float]
) -> dict[str, Any]:
    progress: list[dict[str, float]] = []
    macs, seconds = 0, 0.0
    for trial, points in growing(record["trials"], [axis.name for axis in axes]):
        macs += trial["spent_macs"]
        seconds += trial["wall_seconds"] or 0.0
        if points is not None:
            reached = front_volume(points, axes, reference)
            progress.append({"train_macs": macs, "seconds": seconds, "hypervolume": reached})
    front = [trial for trial in record["trials"] if trial["on_front"]]
    return {
        "name": name,
        "complete": record["counts"]["complete"],
        "stopped": record["counts"]["stopped"],
        "front": [{axis.name: trial[axis.name] for axis in axes} for trial in front],
        "hypervolume": progress[-1]["hypervolume"] if progress else 0.0,
        "best_accuracy": max((trial[ACCURACY] for trial in front), default=None),
        "train_macs": record["train_macs"],
        "train_macs_with_teachers": record["train_macs_with_teachers"],
        "seconds": seconds,
        "progress": progress,
    }


def _warnings(names: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """What makes numbers of different runs no measure of each other."""
    found = []
    known = [run.identity() for run in runs]
    for key, what in (("data_hash", "images"), ("split_hash", "validation images")):
        groups: dict[Any, list[str]] = {}
        for name, identity in zip(names, known, strict=True):
            groups.setdefault(identity.get(key), []).append(name)
        if len(groups) > 1:
            sets = "; ".join(", ".join(group) for group in groups.values())
            found.append(f"accuracies were measured on different {what}, and do not compare: {sets}")
            break
    return found
