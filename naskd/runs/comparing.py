"""Several runs side by side: whose front is better, and how much training each needed for it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from naskd.report import summary
from naskd.runs.attainment import attainment, band, levels_of
from naskd.runs.run import Run, open_run
from naskd.spec.errors import InputError
from naskd.spec.identity import METHODS, by_content
from naskd.spec.objectives import ACCURACY, Objective, described
from naskd.spec.pareto import front_volume
from naskd.store.files import digest
from naskd.study.earlier import IDENTITY as EARLIER_RUNS
from naskd.study.record import growing


def compare(runs: Sequence[Run | Path | str]) -> dict[str, Any]:
    """What runs of the same objectives have found, on one scale.

    Args:
        runs: At least two: runs, or their directories.

    Returns:
        ``objectives``; ``reference_point``: of all, in each objective the worst of the runs'; ``level``: the lowest
        hypervolume of the runs; ``warnings``; ``arms``; and ``runs``, each with its ``name``, ``arm``, ``seed``,
        ``complete``, ``stopped``, ``front`` (of each point its objectives, ``trial``, ``config_id`` and, in words,
        ``student`` and ``taught_by``), ``hypervolume``, ``best_accuracy``, ``train_macs``,
        ``train_macs_with_teachers``, ``seconds``, ``progress`` (``train_macs``, ``seconds``, ``hypervolume`` and
        ``trial`` after each complete one), and ``to_level``: ``train_macs`` and ``seconds`` by which it had the level.

        Runs of one arm differ in their seed alone, and have one budget. An arm has its ``name``, ``runs``,
        ``attainment`` (by cost, see :func:`~naskd.runs.attainment.attainment`), ``progress`` (hypervolume by
        ``train_macs`` and by ``seconds``, see :func:`~naskd.runs.attainment.band`), and ``hypervolume``: of its runs,
        at least one, half of them, all.

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
    arms = _arms(opened, rows, axes)
    level = min(row["hypervolume"] for row in rows)
    for row in rows:
        row["to_level"] = next((p for p in row["progress"] if p["hypervolume"] >= level > 0), None)
    return {
        "objectives": records[0]["objectives"],
        "reference_point": reference,
        "level": level,
        "warnings": [*_warnings(names, opened, records), *_one_seed(arms, rows)],
        "arms": arms,
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
    # Objectives of one's own: one name may mean two things.
    axes = {name: list(map(described, record["objectives"])) for name, record in records.items()}
    for name, found_axes in axes.items():
        for one, other in zip(axes[first], found_axes, strict=True):
            if (one.direction, one.scale) != (other.direction, other.scale):
                raise InputError(
                    f"runs of different objectives do not compare: {one.name} is to {one.direction} on a {one.scale} "
                    f"scale in {first}, and to {other.direction} on a {other.scale} scale in {name}"
                )
            if one.unit != other.unit:
                units = [
                    f"has {axis.unit!r} as its unit" if axis.unit else "has no unit" for axis in (one, other)
                ]
                raise InputError(
                    f"runs of different objectives do not compare: {one.name} {units[0]} in {first}, and {units[1]} in "
                    f"{name}"
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
            at = {"train_macs": macs, "seconds": seconds}
            progress.append({**at, "hypervolume": reached, "trial": trial["number"]})
    costs = [axis for axis in axes if axis.name != ACCURACY]
    front = sorted(
        (trial for trial in record["trials"] if trial["on_front"]),
        key=lambda trial: [axis.sign * trial[axis.name] for axis in costs],
    )
    return {
        "name": name,
        "complete": record["counts"]["complete"],
        "stopped": record["counts"]["stopped"],
        "front": [_point(trial, axes) for trial in front],
        "hypervolume": progress[-1]["hypervolume"] if progress else 0.0,
        "best_accuracy": max((trial[ACCURACY] for trial in front), default=None),
        "train_macs": record["train_macs"],
        "train_macs_with_teachers": record["train_macs_with_teachers"],
        "seconds": seconds,
        "progress": progress,
    }


def _point(trial: Mapping[str, Any], axes: Sequence[Objective]) -> dict[str, Any]:
    config = trial["config"]
    return {
        **{axis.name: trial[axis.name] for axis in axes},
        "trial": trial["number"],
        "config_id": trial["config_id"],
        "student": summary.student(config),
        "taught_by": summary.taught_by(config) if config else "",
    }


def _arms(
    runs: Sequence[Run], rows: Sequence[dict[str, Any]], axes: Sequence[Objective]
) -> list[dict[str, Any]]:
    """Runs of the same study and budget but for its seed, together; each row is told its arm."""
    groups: dict[str, list[int]] = {}
    # What was registered beside what a study uses tells no arms apart.
    common = set.intersection(*(set(run.identity().get(METHODS, {})) for run in runs))
    for number, run in enumerate(runs):
        known = by_content(run.identity())
        identity = {key: value for key, value in known.items() if key not in ("seed", "name")}
        methods = identity.pop(METHODS, {})
        if identity and common:
            identity[METHODS] = {name: methods[name] for name in sorted(common)}
        if identity:  # how long is searched is no part of it, nor how many seeds the front gets
            identity["budget"] = dataclasses.asdict(run.spec.budget)
        groups.setdefault(digest(identity) if identity else f"run {number}", []).append(number)
    found: list[dict[str, Any]] = []
    names = _arm_names([[rows[number]["name"] for number in group] for group in groups.values()])
    for name, group in zip(names, groups.values(), strict=True):
        mine = [rows[number] for number in group]
        for number in group:
            rows[number]["arm"], rows[number]["seed"] = name, runs[number].spec.seed
        found.append(
            {
                "name": name,
                "runs": [row["name"] for row in mine],
                "hypervolume": levels_of([row["hypervolume"] for row in mine]),
                "attainment": {
                    axis.name: attainment(
                        [[(point[axis.name], point[ACCURACY]) for point in row["front"]] for row in mine],
                        less=not axis.maximise,
                    )
                    for axis in axes
                    if axis.name != ACCURACY
                },
                "progress": {
                    of: band([[(at[of], at["hypervolume"]) for at in row["progress"]] for row in mine])
                    for of in ("train_macs", "seconds")
                },
            }
        )
    return found


def _arm_names(groups: Sequence[Sequence[str]]) -> list[str]:
    """What the names of an arm's runs have in common, where that tells arms apart."""
    common = ["".join(_shared(group)).rstrip("0123456789-_. /") for group in groups]
    given = [
        name if len(group) > 1 and name else ", ".join(group)
        for name, group in zip(common, groups, strict=True)
    ]
    return [
        name if given.count(name) == 1 else ", ".join(group)
        for name, group in zip(given, groups, strict=True)
    ]


def _shared(names: Sequence[str]) -> Iterator[str]:
    """The characters that names begin with, all of them."""
    for letters in zip(*names, strict=False):
        if len(set(letters)) > 1:
            return
        yield letters[0]


def _warnings(names: Sequence[str], runs: Sequence[Run], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What makes numbers of different runs no measure of each other."""
    found = []
    known = [run.identity() for run in runs]

    def apart(key: str) -> str:
        groups: dict[Any, list[str]] = {}
        for name, identity in zip(names, known, strict=True):
            groups.setdefault(identity.get(key), []).append(name)
        return "; ".join(", ".join(group) for group in groups.values()) if len(groups) > 1 else ""

    for key, what in (
        ("data_hash", "images"),
        ("split_hash", "validation images"),
        ("modality_hash", "modalities of the images"),
    ):
        if sets := apart(key):
            found.append(f"accuracies were measured on different {what}, and do not compare: {sets}")
            break
    latencies = any(axis["name"] == "latency_ms" for axis in records[0]["objectives"])
    if latencies and (sets := apart("latency_profile")):
        found.append(f"latencies were predicted by different profiles, and do not compare: {sets}")
    shared = [
        [*record["assistants"], *(one for one in record.get("teacher_states", ()) if one["spent_macs"])]
        for record in records
    ]
    if paid := [name for name, networks in zip(names, shared, strict=True) if networks]:
        found.append(
            "the training of assistants, and of states of teachers anew, counts in what is spent, and not in the "
            f"training up to a hypervolume: {', '.join(paid)}"
        )
    warm = [name for name, identity in zip(names, known, strict=True) if identity.get(EARLIER_RUNS)]
    if warm:
        found.append(
            f"what earlier runs have spent, with which these were warm-started, is not counted: {', '.join(warm)}"
        )
    return found


def _one_seed(arms: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Runs of an arm that are no repetitions of each other: their searches are the same."""
    seeds: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        seeds.setdefault((row["arm"], row["seed"]), []).append(row["name"])
    same = [names for names in seeds.values() if len(names) > 1]
    return [
        f"runs of one study with one seed are no repetition of each other, and each counts in what is attained: "
        f"{', '.join(names)}"
        for names in same
    ]


def write_html(comparison: Mapping[str, Any], path: str | Path) -> Path:
    """One self-contained page of a comparison.

    Args:
        comparison: Of :func:`compare`.
        path: Replaced when it exists.
    """
    from naskd.report.compare_html import write_html as write

    write(comparison, Path(path))
    return Path(path)
