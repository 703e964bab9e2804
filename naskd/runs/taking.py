"""Final trainings of a run's trials, and their students as files: what :class:`~naskd.runs.run.Run` does with torch."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from naskd.networks.student_file import probe_shape
from naskd.runs.card_facts import facts_of
from naskd.runs.directory import locked
from naskd.runs.export import check_export, check_rounding, export_student, format_of
from naskd.runs.folder import check_folder, write_folder
from naskd.runs.provenance import (
    check_unchanged,
    difference,
    different_from_search,
    hash_of,
    notes_on_test_images,
)
from naskd.runs.results import FinalStudent, is_of, load_results, shown_designs, shown_student
from naskd.runs.retrain import Design, Retraining, opened_test
from naskd.runs.students import STUDENTS
from naskd.spec.design import TrialConfig
from naskd.spec.doing import doing
from naskd.spec.errors import InputError, NaskdError
from naskd.spec.exports import EXPORTS
from naskd.spec.outputs import usable_folder
from naskd.spec.userfile import import_file
from naskd.store.students import StudentStore
from naskd.study.record import load_ledger
from naskd.trials.jobs import training_key

if TYPE_CHECKING:
    from naskd.runs.run import Run

_LOG = logging.getLogger(__name__)

CALIBRATION = 512
"""Training images that show the ranges of activations: fewer miss rare values, and more change little."""


def retrain_trials(
    run: "Run",
    trials: Sequence[Mapping[str, Any]],
    seeds: int,
    epochs: int,
    observe: Callable[[int, int, str], None],
    labels_alone: bool = False,
) -> dict[str, Any]:
    """See :meth:`naskd.runs.run.Run.retrain`."""
    designs = [_design(trial) for trial in trials]
    check_unchanged(run.path, run.context, "retraining")
    run.context.resources.compute.apply_threads()
    notes = notes_on_test_images(run.path, run.context)
    retraining = Retraining(run.context, run.path, epochs, notes)
    with locked(run.path):
        retraining.prepare(designs)
        check_unchanged(run.path, run.context, "retraining")  # a teacher may have been made again
        return retraining.run(designs, seeds, observe, labels_alone)


@dataclass(frozen=True)
class Wanted:
    """How a student is to leave.

    Args:
        form: Name of an export format; None: as `path` ends.
        path: Of the file; None: the run's own place for it.
        folder: Makes a folder that stands alone, and no other file; None: a file.
        int8: Whether to round it to 8 bits.
        calibration: Training images for that.
        max_loss: Accuracy that the file may lack of the original's, a fraction; None: any.
        license: Of the student, for the model card.
    """

    form: str | None = None
    path: Path | None = None
    folder: Path | None = None
    int8: bool = False
    calibration: int = CALIBRATION
    max_loss: float | None = None
    license: str | None = None

    def __post_init__(self) -> None:
        if self.folder is not None and (self.form is not None or self.path is not None):
            raise InputError("a folder holds files of its own: leave out format and path")
        if self.folder is None and self.license is not None:
            raise InputError("license is for the model card of a folder: give folder, too")
        if self.calibration < 1:
            raise InputError(f"calibration is {self.calibration}; at least 1 image is needed")
        if self.max_loss is not None and not 0 <= self.max_loss <= 1:
            raise InputError(f"max_loss is {self.max_loss:g}; it must be a fraction from 0 to 1")


@dataclass(frozen=True)
class _Judges:
    """Real images that an export is compared on, or made-up ones.

    Args:
        images: ``(N, C, H, W)`` uint8.
        labels: Of them; None of made-up ones.
        split: Which they are: ``test``, ``validation`` or ``made-up``.
        changed: Whether they are others than those of that name that the student was judged on before.
    """

    images: Tensor
    labels: Tensor | None
    split: str
    changed: bool = False


def export_trial(run: "Run", number: int, wanted: Wanted) -> dict[str, Any]:
    """See :meth:`naskd.runs.run.Run.export`."""
    for file in run.spec.code().values():
        if file.is_file():
            import_file(file)  # it may register the format, or what the student is made of
    name = format_of(wanted.path) if wanted.form is None else wanted.form
    target = wanted.path or run.path / "exported" / f"trial{number}{EXPORTS[name].suffix}"
    if wanted.folder is not None:
        card = check_folder(wanted.folder, wanted.int8)
        usable_folder(wanted.folder)
    else:
        card = check_export(name, target, wanted.int8)
        for suffix in (card.suffix, *card.beside):
            _check_target(target.with_suffix(suffix))
    design = _design(run.trial(number))
    check_rounding(card, design.config.architecture.is_quantized, wanted.int8)
    with locked(run.path):
        source, origin, training = _student(run, design)
    judges = _judges(run, source, origin, training)
    doing("writing the student")
    settings: dict[str, Any] = {"calibration": _calibration(run, judges, wanted), "max_loss": wanted.max_loss}
    if wanted.folder is None:
        made = export_student(source, target, judges.images, name, judges.labels, **settings)
    elif judges.labels is None:
        raise InputError("a folder says how accurate its student is: the study's images must be there")
    else:
        facts = facts_of(run, number, training, origin, wanted, judges.split, changed=judges.changed)
        made = write_folder(source, wanted.folder, judges.images, judges.labels, facts, **settings)
    return {**made, "images": judges.split, "origin": origin, "training": training}


def _check_target(path: Path) -> None:
    """See, before anything is trained, that the file of an export can be written, in a folder that may be made."""
    if os.path.lexists(path) and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"{path} cannot be written: it is {what}; give the name of a file")
    if path.is_symlink():
        raise InputError(f"{path} is a link, which would be replaced by a file; give the file itself")
    usable_folder(path.parent)


def _design(trial: Mapping[str, Any]) -> Design:
    if trial["config"] is None or trial["state"] != "COMPLETE":
        raise InputError(
            f"trial {trial['number']} is {trial['state']}, not COMPLETE: there is nothing to train"
            + (f" ({trial['reason']})" if trial["reason"] else "")
        )
    config = TrialConfig.from_dict(trial["config"])
    return Design(trial["number"], config, trial["val_accuracy"], config_id=str(trial["config_id"]))


def _student(run: "Run", design: Design) -> tuple[Path, str, dict[str, Any]]:
    """The file of a design's student, where it comes from, and which training it was.

    It is that of the training whose test accuracy is shown, else of a retraining that did not come to its end, else
    that of the search. It is trained only where none is kept.
    """
    record = load_results(run.path, run.spec.seed)  # which of another run would give another student
    epochs = run.spec.retrain_epochs
    rows = [
        row
        for row in shown_designs(record)
        if row["number"] == design.number and is_of(row, design.config_id)
    ]
    if rows:
        if (shown := shown_student(run.path, record, rows[0])) is not None:
            if other := _made_otherwise(run, shown):
                _LOG.warning(
                    "%s was made with something else than the search had (%s)", shown.path, ", ".join(other)
                )
            return shown.path, "retrained", shown.to_dict()
        epochs = int(rows[0]["epochs"])
    elif (kept := Retraining(None, run.path, epochs).kept(design)) is not None:
        student = FinalStudent(*kept, epochs, 0)
        if not (other := _made_otherwise(run, student)):
            return student.path, "retrained", student.to_dict()
        _LOG.warning(
            "%s is not taken: it was made with something else than the search had (%s)",
            student.path,
            ", ".join(other),
        )
    if not rows and (found := kept_student(run, design.number)) is not None:
        return found, "search", {"epochs": design.config.training.epochs, "test_accuracy": None}
    check_unchanged(run.path, run.context, "training a student for the export")
    run.context.resources.compute.apply_threads()
    retraining = Retraining(run.context, run.path, epochs)
    retraining.prepare([design])
    retraining.train(design, 0)
    made = retraining.kept(design)
    assert made is not None
    return made[0], "trained", FinalStudent(*made, epochs, 0).to_dict()


def kept_student(run: "Run", number: int) -> Path | None:
    """The student that the search has kept of a trial; None where there is none, or it is damaged.

    Args:
        run: Of the search.
        number: Of the trial.
    """
    attrs = load_ledger(run.spec, run.path).get_trials(deepcopy=False)[number].user_attrs
    key = training_key(str(attrs.get("config_id")), attrs.get("seed", 0))
    sha256 = attrs.get("result", {}).get("sha256")
    store = StudentStore(run.path / STUDENTS)
    kept = store.found(key, sha256) if sha256 else None
    if sha256 and kept is None and store.path(key).exists():
        _LOG.warning("%s is not what the search kept: it is damaged, and not used", store.path(key))
    return kept


def _made_otherwise(run: "Run", student: FinalStudent) -> list[str]:
    """In what a student's training differs from the search; nothing where an earlier version did not note it."""
    made = student.training.get("made_with")
    return [] if made is None else different_from_search(made, run.path, run.spec)


def _judges(run: "Run", source: Path, origin: str, training: Mapping[str, Any]) -> _Judges:
    """Real images to compare an export on: all test images, of a student whose test accuracy is known anyway.

    Of one that the search has kept these are the validation images: it may still be chosen among others. Made-up ones
    where the study's are not to be had.
    """
    try:
        lines = difference(run.path, run.context)
        test = None if origin == "search" else opened_test(run.context)
    except NaskdError as error:
        if (shape := probe_shape(source)) is None:
            raise
        _LOG.warning("the study's images cannot be opened, so the export is compared on noise: %s", error)
        generator = torch.Generator().manual_seed(0)
        return _Judges(
            torch.randint(256, (64, *shape), dtype=torch.uint8, generator=generator), None, "made-up"
        )
    if lines:
        _LOG.warning(
            "what is there now is not what the search had, which changes nothing of a student that is trained "
            "already: %s",
            "; ".join(lines),
        )
    if test is None:
        val = run.context.resources.data.val
        changed = any(line.startswith(("data_hash", "split_hash", "modality_hash")) for line in lines)
        return _Judges(val.images, val.labels, "validation", changed)
    changed = training.get("test_hash") not in (None, hash_of(test))
    if changed:
        _LOG.warning("the test images are not those on which the student's test accuracy was measured")
    return _Judges(test.images, test.labels, "test", changed)


def _calibration(run: "Run", judges: _Judges, wanted: Wanted) -> Tensor | None:
    """Training images that show which values activations take, drawn alike at every call."""
    if not wanted.int8:
        return None
    if judges.split == "made-up":
        raise InputError(
            "integers are made with the ranges of training images: the study's images must be there"
        )
    images = run.context.resources.data.train.images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order[: wanted.calibration].to(images.device)]
