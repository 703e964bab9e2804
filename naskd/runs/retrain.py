"""Final trainings of chosen designs, and the only look at the test split.

A front is the best of many noisy results, and so looks better than it is (the winner's curse). Fresh seeds
and images that no choice has seen say what its designs are worth.
"""

import dataclasses
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from naskd.data.images import ImageSet
from naskd.data.sealed import load_test_split, load_test_splits
from naskd.networks.student_file import save_student
from naskd.nn.deployed import as_deployed
from naskd.runs.directory import RESULTS_FILE
from naskd.runs.labels_alone import compared, with_labels_alone
from naskd.runs.provenance import different_parts, made_with
from naskd.runs.results import (
    earlier_designs,
    is_kept_or_told,
    load_results,
    several_ways,
    shown_designs,
    training_seed,
)
from naskd.runs.summary import TrainedDesign, doubtful, summarised
from naskd.schemes.scheme import TrainingOverError
from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS, InputError, NaskdError, RunError, message
from naskd.spec.objectives import ACCURACY, OBJECTIVES
from naskd.spec.outputs import usable_folder
from naskd.spec.places import place_of
from naskd.spec.sizes import sides
from naskd.spec.timeouts import OutOfTimeError, within
from naskd.store.files import discard, file_hash, write_sealed
from naskd.training.evaluation import accuracy, balanced_accuracy, predict
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.measures import ObjectiveError
from naskd.trials.memory import bounded_memory
from naskd.trials.resources import seen
from naskd.trials.run import TrialRun, start_run, trial_metrics
from naskd.trials.steps import run_job

_LOG = logging.getLogger(__name__)

_MEASURES = "measures"
"""Key of a training: what its scheme has measured, by name. Earlier versions did not keep it."""
_ENVIRONMENT = "environment"
"""Key of a training: device, precision and the like, as a trial's. Earlier versions did not keep it."""
_NEED_NO_MEASURES = (ACCURACY, "balanced_accuracy", "train_macs")
"""Objectives known after training that look at nothing that a scheme measures."""


@dataclasses.dataclass(frozen=True)
class Design:
    """What to retrain.

    Args:
        number: Of the trial.
        config: Its design.
        val_accuracy: What the search measured; None where it did not.
        times: So many times the epochs of a retraining.
        config_id: As the trial's ledger names the design; empty where that is not known.
    """

    number: int
    config: TrialConfig
    val_accuracy: float | None
    times: int = 1
    config_id: str = ""


class Retraining:
    """Trains designs with fresh seeds and keeps results and students in the run directory.

    Every finished training is written at once, so that an interrupted retraining goes on where it stopped.

    Args:
        context: The study's; None where nothing is trained, and what was trained is looked up.
        run_dir: Where ``retrained.json`` and ``retrained/*.safetensors`` go.
        epochs: Of the final schedule.
        notes: What whoever reads the test accuracies must know, a sentence each; kept with them.
    """

    def __init__(
        self, context: StudyContext | None, run_dir: Path, epochs: int, notes: Sequence[str] = ()
    ) -> None:
        self._context = context
        self._notes = tuple(notes)
        self.run_dir = run_dir
        self.epochs = epochs
        self._tests: tuple[ImageSet, ImageSet] | None = None
        self._made_with: dict[str, Any] | None = None

    @property
    def context(self) -> StudyContext:
        """The study's."""
        assert self._context is not None, "it was made to look things up"
        return self._context

    @property
    def test(self) -> ImageSet:
        """The test split as students see it."""
        return self._opened[0]

    @property
    def _opened(self) -> tuple[ImageSet, ImageSet]:
        """The test split as students see it and as teachers do, opened at the first use."""
        if self._tests is None:
            resources = self.context.resources
            device, streamed = resources.compute.device, resources.data.train.streamed
            students, teachers = load_test_splits(
                resources.spec.data, resources.spec.base, data=resources.data
            )
            moved = students.to(device, streamed=streamed)
            same = teachers is students
            self._tests = moved, moved if same else teachers.to(device, streamed=streamed)
        return self._tests

    def run(
        self,
        designs: Sequence[Design],
        seeds: int,
        observe: Callable[[int, int, str], None] = lambda done, total, what: None,
        labels_alone: bool = False,
    ) -> dict[str, Any]:
        """Train each design `seeds` times.

        Args:
            designs: Usually a front.
            seeds: At least 1.
            observe: Called with trainings done, trainings in all, and what comes next.
            labels_alone: Also each student with the labels alone, as often; see :mod:`naskd.runs.labels_alone`.

        Returns:
            The content of ``retrained.json``: see docs/reference/record.md.

        Raises:
            InputError: `seeds` is below 1, there is no design, a training diverged, there are no labels to train with
                alone, or see :meth:`prepare`.
        """
        if seeds < 1:
            raise InputError(f"seeds is {seeds}; at least 1 is needed")
        if not designs:
            raise InputError("no design to retrain: the run has no complete trial yet")
        alone = self._with_labels_alone(designs) if labels_alone else {}
        self.prepare(designs)
        self._say_what_does_not_count([*designs, *alone.values()], seeds)
        work = [
            (each, said, replicate)
            for design in designs
            for each, said in ((design, ""), (alone.get(design.number), " with the labels alone"))
            for replicate in range(seeds)
            if each is not None
        ]
        for done, (design, said, replicate) in enumerate(work):
            observe(done, len(work), f"trial {design.number}{said}, seed {replicate + 1} of {seeds}")
            self.train(design, replicate)
        observe(len(work), len(work), "")
        before = self._load()
        trainings = before["trainings"]
        trained = [
            TrainedDesign(
                design.number,
                self._final(design),
                design.val_accuracy,
                [trainings[self.key(design, replicate)] for replicate in range(seeds)],
                design.config_id,
            )
            for design in designs
        ]
        record = {
            "seeds": seeds,
            "epochs": self.epochs,
            "n_test": len(self.test),
            "made_with": self.made_with,
            **summarised(trained, self.context, len(self.test), self.chance, self._teacher_accuracy),
        }
        for row in record["designs"]:
            if (student := alone.get(row["number"])) is not None:
                found = [trainings[self.key(student, replicate)] for replicate in range(seeds)]
                row["labels_alone"] = {**compared(row, found), "epochs": self.epochs * student.times}
        record["earlier"] = earlier_designs(before, record)
        shown = {file for row in shown_designs(record) for file in row["files"]}
        shown |= {trainings[self.key(d, n)]["file"] for d in alone.values() for n in range(seeds)}
        ways = several_ways(
            (t.get(_ENVIRONMENT, {}) for t in trainings.values() if t["file"] in shown), "Retrained students"
        )
        record["warnings"] = [*self._notes, *doubtful(record, self.context, self.chance), *ways]
        for warning in record["warnings"]:
            _LOG.warning("%s", warning)
        self._store({**record, "trainings": trainings})
        return record

    def prepare(self, designs: Sequence[Design]) -> None:
        """Do first what would be a pity to fail at last: open the test images, make the teachers that are missing.

        Raises:
            InputError: A test image cannot be read or does not fit, what a design deploys cannot be saved, a teacher
                cannot be made, or nothing can be written to the run directory.
        """
        usable_folder(self.run_dir / "retrained")
        different = {design.config.config_id: design for design in designs}.values()
        problems = [(design, self.context.designs.deployed_problem(design.config)) for design in different]
        if found := [f"trial {design.number}: {problem}" for design, problem in problems if problem]:
            raise InputError(found)
        assert len(self.test) > 0
        for design in different:
            self._make_teachers(self._final(design))

    def _with_labels_alone(self, designs: Sequence[Design]) -> dict[int, Design]:
        """By the numbers of the designs that are taught.

        Raises:
            InputError: Students of the study have no labels.
        """
        if not self.context.resources.data.labels_teach:
            raise InputError("there are no students of the labels alone: data.modality.labels = false")
        found = {d: with_labels_alone(d.config, self.context.designs) for d in designs}
        return {
            d.number: Design(d.number, alone, None, times=1 + d.config.distillation.unlabelled)
            for d, alone in found.items()
            if alone is not None
        }

    def _say_what_does_not_count(self, designs: Sequence[Design], seeds: int) -> None:
        """Trainings of before that were made with something else, and those of which that is not known."""
        trainings = self._load().get("trainings", {})
        keys = {self.key(design, replicate) for design in designs for replicate in range(seeds)}
        known = [trainings[key].get("made_with") for key in sorted(keys & set(trainings))]
        others = [made for made in known if made is not None and made != self.made_with]
        if others:
            parts = dict.fromkeys(part for made in others for part in different_parts(made, self.made_with))
            _LOG.warning(
                "%d earlier training%s made with something else than what is there now (%s): not counted, and "
                "made again",
                len(others),
                " was" if len(others) == 1 else "s were",
                ", ".join(parts),
            )
        if unknown := known.count(None):
            _LOG.warning(
                "%d training%s kept by an earlier version of naskd, which did not note the images and teachers they "
                "were made with: counted without a check; remove %s to have all made again",
                unknown,
                " was" if unknown == 1 else "s were",
                self.run_dir / RESULTS_FILE,
            )

    @property
    def made_with(self) -> dict[str, Any]:
        """See :func:`naskd.runs.provenance.made_with`; as of the first use, when all teachers are there."""
        if self._made_with is None:
            self._made_with = made_with(self.context, self.test)
        return self._made_with

    def kept(self, design: Design, replicate: int = 0) -> tuple[Path, dict[str, Any]] | None:
        """The student of a training that was done before with its entry, whatever it was made with; None without."""
        training = self._load().get("trainings", {}).get(self.key(design, replicate))
        if training is None or not is_kept_or_told(self.run_dir, training):
            return None
        return self.run_dir / str(training["file"]), dict(training)

    def train(self, design: Design, replicate: int) -> Path:
        """Train a design once, unless that was done before, and keep what came of it.

        Whatever else ``retrained.json`` says stays there until there is something newer.

        Returns:
            The student's file.

        Raises:
            InputError: The training diverged, or what the scheme deploys cannot be saved.
        """
        self._make_teachers(self._final(design))
        found = self.kept(design, replicate)
        if (
            found is not None
            and found[1].get("made_with") in (None, self.made_with)
            and not self._was_judged_blindly(found[1])
        ):
            return found[0]
        training = self._train(design, replicate)
        record = self._load()
        record.setdefault("trainings", {})[self.key(design, replicate)] = training
        self._store(record)
        return self.run_dir / str(training["file"])

    def _was_judged_blindly(self, training: Mapping[str, Any]) -> bool:
        """Whether an objective may have needed what the scheme measured, of a version that did not hand it on."""
        objectives = [OBJECTIVES[name] for name in self.context.resources.spec.objectives]
        may_need = any(o.known == "after" and o.name not in _NEED_NO_MEASURES for o in objectives)
        return may_need and _MEASURES not in training

    def key(self, design: Design, replicate: int) -> str:
        """Names one training: equal designs, epochs and seeds are trained once."""
        return f"{self._final(design).config_id}-{replicate}"

    def student_path(self, design: Design, replicate: int) -> Path:
        """Where the student of one training is kept."""
        return (
            self.run_dir
            / "retrained"
            / f"trial{design.number}-seed{replicate}-{self.key(design, replicate)[:12]}.safetensors"
        )

    def _final(self, design: Design) -> TrialConfig:
        training = dataclasses.replace(design.config.training, epochs=self.epochs * design.times)
        return dataclasses.replace(design.config, training=training)

    def _make_teachers(self, config: TrialConfig) -> None:
        for recipe in self.context.designs.recipes(config):
            if recipe.artifact_id not in self.context.resources.store:
                job = Job(recipe.artifact_id, "artifact", config, recipe.seed, 0, requires=recipe.requires)
                made = run_job(job, self.context, lambda epoch, metrics: Decision.CONTINUE)
                if made.status != "complete":
                    kind = RunError if made.disk_full else InputError
                    raise kind(f"the {recipe.label} could not be made: {made.reason}")

    def _train(self, design: Design, replicate: int) -> dict[str, Any]:
        config = self._final(design)
        seed = training_seed(self.context.resources.spec.seed, config.config_id, replicate)
        try:
            run, metrics = self._trained(config, seed)
        except (TrainingOverError, ObjectiveError, OutOfTimeError) as failure:
            raise _cannot(design, replicate, str(failure)) from failure
        except (NaskdError, OSError):
            raise
        except USERS as failure:  # a user's loss or block may raise anything
            last = traceback.extract_tb(failure.__traceback__)[-1]
            place = place_of(failure) or f"{last.filename}:{last.lineno}"
            raise _cannot(design, replicate, f"{message(failure)} ({place})") from failure
        student = run.scheme.deployed
        path = self.student_path(design, replicate)
        data = self.context.resources.data
        shape = (data.in_channels, *sides(data.resolution))
        if path.is_dir():
            discard(path)
        save_student(path, student, data.class_names, shape, seed=seed, **seen(self.context.resources))
        return {
            **metrics,
            _MEASURES: run.measures,
            "seed": seed,
            **self._on_test(student),
            "file": str(path.relative_to(self.run_dir)),
            "sha256": file_hash(path),
            "made_with": self.made_with,
            _ENVIRONMENT: self.context.resources.compute.environment(),
        }

    def _trained(self, config: TrialConfig, seed: int) -> tuple[TrialRun, dict[str, float]]:
        """A training to its end, within the limits that one of a search has; and its metrics."""
        spec, device = self.context.resources.spec, self.context.resources.compute.device.type
        seconds = spec.execution.epoch_seconds
        late = f"an epoch took longer than execution.epoch_seconds = {seconds:g}"
        with bounded_memory(device):
            run, _ = start_run(config, self.context, seed)
            as_deployed(run.scheme.deployed).describe()  # what nobody could save is not trained
            while run.epoch < run.total_epochs:
                with within(seconds, late):
                    reached = run.advance(run.epoch + 1)
            known = {
                **run.measures,
                ACCURACY: reached["val_accuracy"],
                **run.cost.deployed(),
                "train_macs": run.train_macs,
            }
            return run, trial_metrics(run, config, known, spec.objectives, seed)

    @property
    def chance(self) -> float:
        """Test accuracy of who always says the most frequent class."""
        return int(torch.bincount(self.test.labels.cpu()).max()) / len(self.test)

    def _on_test(self, student: nn.Module) -> dict[str, float]:
        """What is noted of the test images; balanced too where the study asks for it."""
        predictions, labels = self._predictions(student, self.test), self.test.labels
        found = {"test_accuracy": accuracy(predictions, labels)}
        if "balanced_accuracy" in self.context.resources.spec.objectives:
            found["test_balanced_accuracy"] = balanced_accuracy(predictions, labels)
        return found

    def _teacher_accuracy(self, teacher: nn.Module) -> float:
        test = self._opened[1]
        return accuracy(self._predictions(teacher, test), test.labels)

    def _predictions(self, network: nn.Module, test: ImageSet) -> Tensor:
        return predict(network, test.images, self.context.resources.compute)

    def _load(self) -> dict[str, Any]:
        context = self._context
        return load_results(self.run_dir, None if context is None else context.resources.spec.seed)

    def _store(self, record: dict[str, Any]) -> None:
        write_sealed(self.run_dir / RESULTS_FILE, record)


def opened_test(context: StudyContext) -> ImageSet:
    """The test images as students see them, on the CPU, for who takes away a student that was tested on them.

    Raises:
        InputError: They are missing or cannot be read.
    """
    resources = context.resources
    return load_test_split(resources.spec.data, resources.spec.base, data=resources.data)


def _cannot(design: Design, replicate: int, why: str) -> InputError:
    return InputError(
        f"trial {design.number} cannot be retrained, with seed {replicate + 1}: {why}; leave it out"
    )
