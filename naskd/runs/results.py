"""What a run directory keeps of retrainings, and whether it is what was written. Torch is not needed for it."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naskd.runs.directory import RESULTS_FILE
from naskd.spec.chance import guessed_at_most, may_guess
from naskd.spec.errors import DamagedError
from naskd.spec.seeds import derive_seed
from naskd.store.files import file_hash, is_sealed, read_sealed

_LOG = logging.getLogger(__name__)


def load_results(run_dir: Path, seed: int | None = None) -> dict[str, Any]:
    """What ``retrained.json`` of a run says, its single trainings under ``trainings``; nothing where there is none.

    Args:
        run_dir: Of the run.
        seed: Of its study; None where it is not known.

    Raises:
        DamagedError: It is not what was written, or of a study with another seed.
    """
    path = run_dir / RESULTS_FILE
    if not path.exists():
        return {}
    way_out = "restore it from a copy, or move it away and retrain: the same seeds give the same results"
    record = read_sealed(path, way_out)
    trainings = record.get("trainings")  # every version has written it, and never empty
    if not (
        isinstance(trainings, dict)
        and trainings
        and all(isinstance(training, dict) and "file" in training for training in trainings.values())
    ):
        raise DamagedError(f"{path} is damaged: it does not say what was trained; {way_out}")
    if seed is not None and any(_has_another_seed(seed, *item) for item in trainings.items()):
        raise DamagedError(f"{path} is of another run: its trainings have other seeds; {way_out}")
    return record


def shown_designs(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The designs whose test accuracies are shown: those of the last retraining, then those of earlier ones.

    Args:
        record: See :func:`load_results`. Earlier versions kept the last retraining alone.
    """
    epochs = record.get("epochs")
    return [{"epochs": epochs, **row} for row in (*record.get("designs", ()), *record.get("earlier", ()))]


def is_of(row: Mapping[str, Any], config_id: object) -> bool:
    """Whether a row is of a design of that name; of earlier versions, whose rows name none, that is not known.

    The ledger of a run may have been removed or replaced, and a trial of that number be of another design now.
    """
    return row.get("config_id") in (None, "", config_id)


def of_trials(
    record: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[int]]:
    """A record of retrainings without the rows that are of other designs than a run's trials of their numbers.

    Args:
        record: See :func:`load_results`.
        trials: Of the run, all of them by number.

    Returns:
        The record, and the numbers of the rows that were left out.
    """
    names = {trial["number"]: trial["config_id"] for trial in trials}
    rows = {part: list(record.get(part) or ()) for part in ("designs", "earlier") if part in record}
    kept = {
        part: [row for row in some if row["number"] in names and is_of(row, names[row["number"]])]
        for part, some in rows.items()
    }
    left_out = [row["number"] for part, some in rows.items() for row in some if row not in kept[part]]
    found = {**record, **kept}
    if (record.get("matches_teacher") or {}).get("number") in left_out:
        found["matches_teacher"] = None
    return found, sorted(left_out)


def earlier_designs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is shown of earlier retrainings beside a new one: the designs that are not in it, made with the same.

    Args:
        before: Of ``retrained.json``, until now.
        now: Of the new retraining.

    Returns:
        Rows as in ``designs``, without a place on the front, which is of one retraining. Those that are not shown any
        more are named in a warning.
    """
    numbers = {row["number"] for row in now["designs"]}
    rows = [{**row, "on_front": None} for row in shown_designs(before) if row["number"] not in numbers]
    if not rows or before.get("made_with") == now["made_with"]:
        return rows
    _LOG.warning(
        "test accuracies of before are not shown any more, since they were made with something else: of trial%s %s; "
        "retrain all that you compare",
        "" if len(rows) == 1 else "s",
        ", ".join(map(str, sorted(row["number"] for row in rows))),
    )
    return []


@dataclass(frozen=True)
class FinalStudent:
    """The student of a final training.

    Args:
        path: Of its file.
        training: As ``retrained.json`` keeps it.
        epochs: Of the training.
        replicate: Which of its design's, from 0.
    """

    path: Path
    training: Mapping[str, Any]
    epochs: int
    replicate: int

    def to_dict(self) -> dict[str, Any]:
        """Which training it was, in plain JSON types."""
        return {
            "epochs": self.epochs,
            "replicate": self.replicate + 1,
            "seed": str(self.training.get("seed", "")),
            "test_accuracy": self.training["test_accuracy"],
            "test_hash": (self.training.get("made_with") or {}).get("test_hash"),
        }


def shown_student(run_dir: Path, record: Mapping[str, Any], row: Mapping[str, Any]) -> FinalStudent | None:
    """A student of those whose mean test accuracy is shown, of the first seed that is there and is what was written.

    Args:
        run_dir: Of the run.
        record: See :func:`load_results`.
        row: Of :func:`shown_designs`.
    """
    by_file = {training["file"]: training for training in record["trainings"].values()}
    for replicate, file in enumerate(row["files"]):
        training = by_file.get(file)
        why = "is missing or damaged"
        if training is not None and is_kept(run_dir, training):
            made_with = training.get("made_with") in (None, record.get("made_with"))
            if made_with and training["test_accuracy"] == row["test_accuracies"][replicate]:
                return FinalStudent(run_dir / file, training, int(row["epochs"]), replicate)
            why = "is not the one whose test accuracy is shown"
        _LOG.warning("the student of seed %d, %s, %s", replicate + 1, run_dir / file, why)
    return None


def training_seed(study_seed: int, config_id: str, replicate: int) -> int:
    """Of the `replicate`-th final training of a design."""
    return derive_seed("retrain", study_seed, config_id, replicate)


def _has_another_seed(study_seed: int, key: str, training: Mapping[str, Any]) -> bool:
    config_id, _, replicate = key.rpartition("-")
    if "seed" not in training or not replicate.isdecimal():
        return False
    return bool(training["seed"] != training_seed(study_seed, config_id, int(replicate)))


def is_kept(run_dir: Path, training: Mapping[str, Any]) -> bool:
    """Whether the student of a training is there and is what was written; earlier versions kept no hash of it."""
    path = run_dir / str(training["file"])
    return path.is_file() and training.get("sha256") in (None, file_hash(path))


def is_kept_or_told(run_dir: Path, training: Mapping[str, Any]) -> bool:
    """The same, with a warning of a student that is there and damaged: it will be trained again."""
    kept, path = is_kept(run_dir, training), run_dir / str(training["file"])
    if not kept and path.exists():
        _LOG.warning("%s is damaged: its content is not what was written; it is trained again", path)
    return kept


def damaged_students(run_dir: Path, record: Mapping[str, Any]) -> list[str]:
    """Files of students, as ``retrained.json`` names them, that are missing or not what was written."""
    trainings = record.get("trainings", {}).values()
    return [str(training["file"]) for training in trainings if not is_kept(run_dir, training)]


def doubts(run_dir: Path) -> list[str]:
    """What cannot be relied on of the files of a run's retrainings, for people."""
    retrained = load_results(run_dir)
    found = [
        f"{file} is missing or damaged; naskd retrain and naskd export make it again."
        for file in damaged_students(run_dir, retrained)
    ]
    found += retrained.get("warnings", ())
    if retrained and not is_sealed(run_dir / RESULTS_FILE):
        found.append(
            f"{RESULTS_FILE} was written by an earlier version, without a hash: damage to it would not be noticed."
        )
    return found


def several_ways(environments: Iterable[Mapping[str, Any]], what: str) -> list[str]:
    """A sentence where trainings were not all made in one way, as after a resume on another machine.

    Args:
        environments: Of each training, as its result says it; one that does not tell all is left out.
        what: They are, for people: ``Trials``.
    """
    ways = Counter(
        f"naskd {there['naskd']} on {str(there['device']).partition(':')[0]} in {there['precision']}"
        for there in environments
        if {"naskd", "device", "precision"} <= set(there)
    )
    if len(ways) < 2:
        return []
    told = "; ".join(f"{n} with {way}" for way, n in ways.items())
    return [f"{what} were trained in several ways, by which their accuracies may differ, too: {told}."]


def guessed(record: Mapping[str, Any]) -> list[str]:
    """That no student has surely learned anything, in words; nothing where one has.

    Args:
        record: Of a run, with all its trials.
    """
    complete = [trial["val_accuracy"] for trial in record["trials"] if trial["state"] == "COMPLETE"]
    images = record.get("images")
    if not complete or not images or not may_guess(best := max(complete), images, len(complete)):
        return []
    n, classes, tries = int(images["val"]), int(images["classes"]), len(complete)
    who = f"the best of {tries} that guess" if tries > 1 else "one that guesses"
    return [
        f"No student is surely better than guessing: the best names {best:.1%} of {n} validation images rightly. "
        f"Guessing among {classes} classes names {1 / classes:.1%}, and by accident {who} may name "
        f"{guessed_at_most(n, classes, tries) / n:.1%}. None is worth taking: see whether images and labels belong "
        "together, then raise epochs or learning rates."
    ]
