"""The run record: all that a study's ledger says, as plain data. Reports and scripts read nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from naskd.spec.errors import InputError
from naskd.spec.objectives import ACCURACY, OBJECTIVES, Objective, described
from naskd.spec.pareto import front_mask, front_volume
from naskd.spec.study import StudySpec
from naskd.study.earlier import TAKEN
from naskd.study.expected import expect
from naskd.study.importance import importance, importance_by_cost, importance_floor, trials_used
from naskd.study.kept import front_alone
from naskd.study.ledger import (
    CONTINUES,
    REPEATS_FROM,
    TRAINED_IN,
    booked_artifacts,
    mean_values,
    replicate_of,
    reported_epochs,
    told_twice,
    unmade_macs,
)
from naskd.study.opening import COPIES, IMAGES, SCHEMA_VERSION, UNLABELLED, stored_study
from naskd.study.seals import check_study, check_trial
from naskd.study.storage import open_storage, place_of, told_as_errors
from naskd.study.used import UNUSED
from naskd.trials.jobs import own_from, training_key

OptunaStudy = optuna.Study
"""For those who hand one on, and do not import optuna."""

TRIAL_KEYS = ("val_accuracy", "macs", "n_params", "size_bytes", "best_val_accuracy")
"""Metrics of a trial that every record has, whatever the objectives."""


@told_as_errors()
def load_ledger(spec: StudySpec, run_dir: Path) -> optuna.Study:
    """A run's study, for reading.

    Raises:
        InputError: The storage holds no such study.
    """
    study = stored_study(spec, open_storage(spec.storage, run_dir))
    if study is None:
        raise InputError(f"the storage of {run_dir} holds no study named {spec.name!r}")
    if "reference_point" not in study.user_attrs:
        raise InputError(f"the search of {run_dir} has not begun, or was stopped as it began: search again")
    return study


def with_curves(study: optuna.Study) -> optuna.Study:
    """A copy of a study in memory, whose trials have validation accuracies by epoch as intermediate values.

    Epochs that tell of another network, which trains before the student, have none.
    """
    copy = optuna.create_study(directions=study.directions, study_name=study.study_name)
    for name, value in study.user_attrs.items():
        copy.set_user_attr(name, value)
    for trial in study.get_trials():
        curve = (trial.user_attrs.get("result") or {}).get("curve", ())
        trial.intermediate_values = {
            row["epoch"]: row[ACCURACY] for row in curve[own_from(curve) :] if ACCURACY in row
        }
        copy.add_trial(trial)
    return copy


def study_objectives(study: optuna.Study, names: Sequence[str]) -> list[Objective]:
    """The objectives of a study as they were when it was created, whether they are registered here or not.

    Raises:
        InputError: The study was created before it kept them, and one is unknown.
    """
    kept = {data["name"]: data for data in study.user_attrs.get("objectives", ())}
    return [described(kept[name]) if name in kept else OBJECTIVES[name] for name in names]


def booked_networks(spec: StudySpec, storage: optuna.storages.BaseStorage) -> dict[str, dict[str, Any]]:
    """Teachers and assistants that a study's ledger names, by content id; none where there is no such study."""
    study = stored_study(spec, storage)
    return {} if study is None else booked_artifacts(study.user_attrs, place_of(study))


def complete_trainings(study: optuna.Study) -> dict[str, dict[str, tuple[float, ...]]]:
    """Objective values of the complete trials by their design and :func:`~naskd.trials.jobs.training_key`."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        config_id = str(trial.user_attrs.get("config_id"))
        key = training_key(config_id, trial.user_attrs.get("seed", 0))
        found.setdefault(config_id, {})[key] = tuple(trial.values)
    return found


@told_as_errors()
def run_record(
    study: optuna.Study, objectives: Sequence[str], *, everything: bool = True, with_importance: bool = True
) -> dict[str, Any]:
    """The record of a study.

    Args:
        study: Opened for reading.
        objectives: Of the study, in its order.
        everything: All trials and the extras of a report (progress, importance); otherwise the front only.
        with_importance: False leaves that out, which takes seconds, and is on the page alone; while trials run it
            leaves out what is expected of designs, too.

    Returns:
        A mapping as documented in docs/reference/record.md; trials by number, the front alone by rising cost.
    """
    axes = study_objectives(study, objectives)
    reference_point = study.user_attrs["reference_point"]
    place = place_of(study)
    check_study(study.user_attrs, place)
    stored = study.get_trials(deepcopy=False)
    trials = [_trial(t, objectives, place) for t in stored]
    for number, first in told_twice(stored).items():
        reason = f"trial {first} says the same: two drivers have told it at one moment"
        trials[number].update(state="FAIL", retried=True, reason=reason)
    for trial in trials:
        if trial["trained_in"] is not None and not trial["retried"]:
            trials[trial["trained_in"]]["siblings"].append(trial["number"])
        turned_away = trial["state"] == "PRUNED" and not trial["curve"]
        if trial["continues"] is not None and not (trial["retried"] or turned_away):
            paused = trials[trial["continues"]]
            paused["continued_by"] = trial["number"]
            paused["reason"] += f"; trial {trial['number']} goes on with it"
        if trial["replicate_of"] is not None and trial["state"] == "FAIL" and not trial["retried"]:
            trials[trial["replicate_of"]]["failed_again"].append(trial["number"])
    for number, lost in _lost_epochs(stored).items():
        trials[number]["lost_epochs"] = lost
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    designs = _designs(complete, objectives)
    points = [tuple(t[name] for name in objectives) for t in designs]
    front = front_mask(points, axes)
    for trial in trials:
        trial["on_front"] = False
    for trial, on_front in zip(designs, front.tolist(), strict=True):
        trial["on_front"] = on_front
    images = study.user_attrs.get(IMAGES)
    counts = _counts(trials, complete)
    if (
        with_importance or not counts["running"]
    ):  # else each look takes a second, and the next trial changes it
        known = [axis.name for axis in axes if axis.known == "before"]
        expect(complete, ["macs", *known], (images or {}).get("val", 0))
    artifacts = booked_artifacts(study.user_attrs, place)
    shared_macs = sum(a["spent_macs"] for a in artifacts.values() if a["label"] != "teacher")
    shared_macs += unmade_macs(study.user_attrs, place)
    teachers = [
        {"name": a["label"], **a} for a in artifacts.values() if a["label"] == "teacher"
    ]  # once nameless
    train_macs = sum(t["spent_macs"] for t in trials) + shared_macs
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "study": study.study_name,
        "objectives": [axis.describe() for axis in axes],
        "reference_point": reference_point,
        "hypervolume": front_volume(points, axes, reference_point),
        "train_macs": train_macs,
        "train_macs_with_teachers": train_macs + sum(t.get("spent_macs", 0) for t in teachers),
        "lost_epochs": sum(t["lost_epochs"] for t in trials),
        "bank": _bank(trials),
        "warm_start": list(study.user_attrs.get(TAKEN, ())),
        "images": images,
        "unlabelled": _counted(study, UNLABELLED),
        "copies": _counted(study, COPIES),
        "modality": (study.user_attrs.get("identity") or {}).get("data", {}).get("modality"),
        "teacher": max(teachers, key=lambda teacher: teacher["val_accuracy"], default=None),
        "teachers": teachers,
        "teacher_states": [a for a in artifacts.values() if a["label"] not in ("teacher", "assistant")],
        "assistants": [a for a in artifacts.values() if a["label"] == "assistant"],
        "counts": counts,
        "trials": trials,
    }
    if not everything:
        return front_alone(record)
    record["times"] = _times(stored, trials)
    record["progress"] = _progress(trials, axes, reference_point)
    if with_importance:
        record["importance"] = importance(study, axes)
        record["importance_floor"] = importance_floor(study, axes)
        record["importance_trials"] = trials_used(study)
        record["importance_by_cost"] = importance_by_cost(study, axes)
    record["environment"] = next((t["environment"] for t in reversed(complete) if t["environment"]), {})
    return record


def _counted(study: optuna.Study, key: str) -> dict[str, int] | None:
    """Numbers of images that a study notes; None where all are 0."""
    counts = study.user_attrs.get(key) or {}
    return dict(counts) if any(counts.values()) else None


def _times(stored: Sequence[FrozenTrial], trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """When trials began and ended, in local time of the machine that searched, and how long they took."""
    begun = [t.datetime_start for t in stored if t.datetime_start is not None]
    ended = [t.datetime_complete for t in stored if t.datetime_complete is not None and t.datetime_start]
    first, last = min(begun, default=None), max(ended, default=None)
    return {
        "began": first and first.isoformat(timespec="seconds"),
        "ended": last and last.isoformat(timespec="seconds"),
        "seconds": (last - first).total_seconds() if first and last else None,
        "trained_seconds": sum(t["wall_seconds"] or 0 for t in trials),
    }


def _counts(trials: Sequence[Mapping[str, Any]], complete: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many trials there are of each kind."""
    failed = [t for t in trials if t["state"] == "FAIL" and not t["retried"]]
    pruned = [t for t in trials if t["state"] == "PRUNED"]
    # Until the one that goes on has ended, the paused one stands for both, as it does in the budget.
    open_trials = {t["number"] for t in trials if t["state"] in ("RUNNING", "WAITING")}
    stopped = [t for t in pruned if t["curve"] != [] and t["continued_by"] in (None, *open_trials)]
    trained = [t for t in (*complete, *failed, *stopped) if t["trained_in"] is None]
    return {
        "complete": len(complete),
        "again": sum(t["replicate_of"] is not None and t["trained_in"] is None for t in complete),
        "siblings": sum(t["trained_in"] is not None for t in complete),
        "failed": len(failed),
        "stopped": len(stopped),
        "trained": len(trained),
        "turned_away": sum(t["curve"] == [] for t in pruned),
        "running": sum(t["state"] == "RUNNING" for t in trials),
    }


def _designs(complete: Sequence[dict[str, Any]], objectives: Sequence[str]) -> list[dict[str, Any]]:
    """The first trial of each design, with the means over all its trainings in the place of its own values."""
    by_design: dict[int, list[dict[str, Any]]] = {}
    for trial in complete:
        by_design.setdefault(_first(trial), []).append(trial)
    for number, trainings in by_design.items():
        if len(trainings) == 1:
            continue
        shown = next((t for t in trainings if t["number"] == number), trainings[0])
        accuracies = [t[ACCURACY] for t in trainings]
        shown["replicates"] = {
            "n": len(trainings),
            "mean": fmean(accuracies),
            "sd": stdev(accuracies),
            "trials": [t["number"] for t in trainings],
        }
        shown["own"] = {name: shown[name] for name in objectives}
        means = mean_values([[t[name] for name in objectives] for t in trainings])
        shown.update(zip(objectives, means, strict=True))
    return [t for t in complete if t["replicate_of"] is None]


def _trial(trial: FrozenTrial, objectives: Sequence[str], place: str) -> dict[str, Any]:
    check_trial(trial, objectives, place)
    attrs = trial.user_attrs
    result: Mapping[str, Any] = attrs.get("result") or {}
    metrics = result.get("metrics", {})
    reason = attrs.get("reason") or result.get("reason", "")
    return {
        "number": trial.number,
        "state": trial.state.name,
        "reason": reason,
        **{key: metrics.get(key) for key in dict.fromkeys([*TRIAL_KEYS, *objectives])},
        "config": attrs.get("config"),
        "config_id": attrs.get("config_id"),
        "seed": str(attrs.get("seed", "")),  # of 64 bits: JavaScript and tables with gaps round whole numbers
        "wall_seconds": result.get("wall_seconds"),
        "train_macs": result.get("train_macs", 0),
        "spent_macs": result.get("spent_macs", 0),
        "lost_macs": result.get("lost_macs", 0),
        "lost_epochs": 0,
        "asked_images": result.get("asked_images", 0),
        "forward_images": result.get("forward_images", 0),
        "bank_bytes": dict(result.get("bank_bytes", {})),
        "teacher_agreement": result.get("teacher_agreement"),
        "measures": dict(result.get("measures", {})),
        "curve": list(result.get("curve", ())),
        "environment": result.get("environment", {}),
        "error": result.get("error", ""),
        "replicate_of": None if replicate_of(trial)[1] == 0 else replicate_of(trial)[0],
        "replicates": None,
        "failed_again": [],
        "own": None,
        "expected": None,
        "trained_in": attrs.get(TRAINED_IN),
        "siblings": [],
        "continues": attrs.get(CONTINUES),
        "continued_by": None,
        "retry_of": attrs.get("retry_of"),
        "retried": trial.state is TrialState.FAIL and "result" not in attrs,
        "parameters": dict(trial.params),
        "unused": attrs.get(UNUSED),
    }


def _lost_epochs(stored: Sequence[FrozenTrial]) -> dict[int, int]:
    """Epochs of trials that ended without a result, and that the one that was begun in their place has trained again.

    What they took is in no result. An epoch that was broken off, or that nobody has trained again, is not known.
    """
    found: dict[int, int] = {}
    for trial in stored:
        attrs = trial.user_attrs
        if REPEATS_FROM in attrs and "retry_of" in attrs:
            before = stored[attrs["retry_of"]]
            done = max(reported_epochs(before.user_attrs), default=0)
            while not done:  # it had come no further than those that it had run again
                before = stored[before.user_attrs["retry_of"]]
                done = max(reported_epochs(before.user_attrs), default=0)
            found[attrs["retry_of"]] = done - attrs[REPEATS_FROM]
    return found


def _bank(trials: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """What the banks saved, over all trials; None where no trial asked a teacher, or the ledger is too old to say."""
    heard = [t for t in trials if t["asked_images"]]
    if not heard:
        return None
    whole = {t["number"]: t["train_macs"] for t in trials}

    def own_macs(trial: Mapping[str, Any]) -> int:
        """Without the part of a training that the paused trial has, with which this one goes on."""
        before = trial["continues"]
        return int(trial["train_macs"]) - (0 if before is None else whole.get(before, 0))

    asked, forward = (sum(t[key] for t in heard) for key in ("asked_images", "forward_images"))
    sizes: dict[str, int] = {}
    for trial in heard:
        for bank, size in trial["bank_bytes"].items():
            # A process knows of the columns that it has met: the largest is nearest to what there is.
            sizes[bank] = max(size, sizes.get(bank, 0))
    return {
        "asked_images": asked,
        "forward_images": forward,
        "hit_rate": 1 - forward / asked,
        # What died with a worker would have been lost without a bank, too.
        "saved_macs": sum(own_macs(t) - (t["spent_macs"] - t["lost_macs"]) for t in heard),
        "size_bytes": sum(sizes.values()),
    }


def _progress(
    trials: Sequence[Mapping[str, Any]], axes: Sequence[Objective], reference_point: Mapping[str, float]
) -> list[dict[str, float]]:
    """Hypervolume after each complete trial, against the training MACs spent on trials up to then."""
    spent, progress = 0, []
    for trial, points in growing(trials, [axis.name for axis in axes]):
        spent += trial["spent_macs"]
        if points is not None:
            progress.append(
                {
                    "train_macs": spent,
                    "trial": trial["number"],
                    "hypervolume": front_volume(points, axes, reference_point),
                }
            )
    return progress


def growing(
    trials: Sequence[Mapping[str, Any]], objectives: Sequence[str]
) -> Iterator[tuple[Mapping[str, Any], list[tuple[float, ...]] | None]]:
    """Trials of a record by number, complete ones with the objective values of all designs as known by then."""
    values: dict[int, list[tuple[float, ...]]] = {}
    means: dict[int, tuple[float, ...]] = {}
    for trial in trials:
        if trial["state"] != "COMPLETE":
            yield trial, None
            continue
        own = trial["own"] or trial
        trainings = values.setdefault(_first(trial), [])
        trainings.append(tuple(own[name] for name in objectives))
        means[_first(trial)] = mean_values(trainings)
        yield trial, list(means.values())


def _first(trial: Mapping[str, Any]) -> int:
    first = trial["replicate_of"]
    return int(trial["number"] if first is None else first)
