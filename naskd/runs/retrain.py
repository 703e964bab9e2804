"""Final trainings of chosen designs, and the only look at the test split.

A front is the best of many noisy results, and so looks better than it is (the winner's curse). Fresh seeds
and images that no choice has seen say what its designs are worth.
"""

import dataclasses
import logging
import math
import statistics
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from naskd.data.images import ImageSet
from naskd.data.sealed import load_test_split
from naskd.networks.student_file import save_student
from naskd.nn.deployed import as_deployed
from naskd.runs.directory import RESULTS_FILE
from naskd.runs.provenance import different_parts, made_with
from naskd.runs.results import is_kept_or_told, load_results, training_seed
from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS, InputError, NaskdError, RunError, one_line
from naskd.spec.objectives import ACCURACY, OBJECTIVES, cost_of
from naskd.spec.outputs import usable_folder
from naskd.spec.pareto import front_mask
from naskd.spec.timeouts import OutOfTimeError, within
from naskd.store.files import discard, file_hash, write_sealed
from naskd.training.evaluation import accuracy, predict
from naskd.training.loop import NonFiniteError
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.measures import ObjectiveError, objective_value
from naskd.trials.memory import bounded_memory
from naskd.trials.prerequisites import ArtifactRecipe
from naskd.trials.run import TrialRun, start_run, trial_metrics
from naskd.trials.steps import run_job

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Design:
    """What to retrain: a trial's number, its design, what the search measured."""

    number: int
    config: TrialConfig
    val_accuracy: float | None


class Retraining:
    """Trains designs with fresh seeds and keeps results and students in the run directory.

    Every finished training is written at once, so that an interrupted retraining goes on where it stopped.

    Args:
        context: The study's; None where nothing is trained, and what was trained is looked up.
        run_dir: Where ``retrained.json`` and ``retrained/*.safetensors`` go.
        epochs: Of the final schedule.
    """

    def __init__(self, context: StudyContext | None, run_dir: Path, epochs: int) -> None:
        self._context = context
        self.run_dir = run_dir
        self.epochs = epochs
        self._test: ImageSet | None = None
        self._made_with: dict[str, Any] | None = None

    @property
    def context(self) -> StudyContext:
        """The study's."""
        assert self._context is not None, "it was made to look things up"
        return self._context

    @property
    def test(self) -> ImageSet:
        """The test split, opened at the first use."""
        if self._test is None:
            spec = self.context.resources.spec
            streamed = self.context.resources.data.train.streamed
            test = load_test_split(spec.data, spec.base)
            self._test = test.to(self.context.resources.compute.device, streamed=streamed)
        return self._test

    def run(
        self,
        designs: Sequence[Design],
        seeds: int,
        observe: Callable[[int, int, str], None] = lambda done, total, what: None,
    ) -> dict[str, Any]:
        """Train each design `seeds` times.

        Args:
            designs: Usually a front.
            seeds: At least 1.
            observe: Called with trainings done, trainings in all, and what comes next.

        Returns:
            The content of ``retrained.json``: see docs/reference/record.md.

        Raises:
            InputError: `seeds` is below 1, there is no design, a training diverged, or see :meth:`prepare`.
        """
        if seeds < 1:
            raise InputError(f"seeds is {seeds}; at least 1 is needed")
        if not designs:
            raise InputError("no design to retrain: the run has no complete trial yet")
        self.prepare(designs)
        self._say_what_does_not_count(designs, seeds)
        work = [(design, replicate) for design in designs for replicate in range(seeds)]
        for done, (design, replicate) in enumerate(work):
            observe(done, len(work), f"trial {design.number}, seed {replicate + 1} of {seeds}")
            self.train(design, replicate)
        observe(len(work), len(work), "")
        trainings = self._load()["trainings"]
        record = self._summary(designs, seeds, trainings)
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

    def _say_what_does_not_count(self, designs: Sequence[Design], seeds: int) -> None:
        """Trainings of before that were made with something else, and those of which that is not known."""
        trainings = self._load().get("trainings", {})
        keys = {self.key(design, replicate) for design in designs for replicate in range(seeds)}
        known = [trainings[key].get("made_with") for key in sorted(keys & set(trainings))]
        others = [made for made in known if made is not None and made != self.made_with]
        if others:
            parts = dict.fromkeys(part for made in others for part in different_parts(made, self.made_with))
            _LOG.warning(
                "%d earlier training%s made with another %s: not counted, and made again",
                len(others),
                " was" if len(others) == 1 else "s were",
                " and ".join(parts),
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

    def newest(self, design: Design) -> tuple[Path, dict[str, Any]] | None:
        """The first student of a trial in the last retraining, whatever its epochs; None where it is in none."""
        record = self._load()
        files = [row["files"][0] for row in record.get("designs", ()) if row["number"] == design.number]
        there = [
            (self.run_dir / str(training["file"]), dict(training))
            for training in record.get("trainings", {}).values()
            if training["file"] in files and is_kept_or_told(self.run_dir, training)
        ]
        return there[0] if there else None

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
        if found is not None and found[1].get("made_with") in (None, self.made_with):
            return found[0]
        training = self._train(design, replicate)
        record = self._load()
        record.setdefault("trainings", {})[self.key(design, replicate)] = training
        self._store(record)
        return self.run_dir / str(training["file"])

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
        training = dataclasses.replace(design.config.training, epochs=self.epochs)
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
        except (NonFiniteError, ObjectiveError, OutOfTimeError) as failure:
            raise _cannot(design, replicate, str(failure)) from failure
        except (NaskdError, OSError):
            raise
        except USERS as failure:  # a user's loss or block may raise anything
            last = traceback.extract_tb(failure.__traceback__)[-1]
            why = f"{one_line(failure)} ({last.filename}:{last.lineno})"
            raise _cannot(design, replicate, why) from failure
        student = run.scheme.deployed
        path = self.student_path(design, replicate)
        data = self.context.resources.data
        shape = (data.in_channels, data.resolution, data.resolution)
        if path.is_dir():
            discard(path)
        save_student(path, student, data.class_names, shape, seed=seed)
        return {
            **metrics,
            "seed": seed,
            "test_accuracy": self._test_accuracy(student),
            "file": str(path.relative_to(self.run_dir)),
            "sha256": file_hash(path),
            "made_with": self.made_with,
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
                ACCURACY: reached["val_accuracy"],
                **dataclasses.asdict(run.cost),
                "train_macs": run.train_macs,
            }
            return run, trial_metrics(run, config, known, spec.objectives, seed)

    def _test_accuracy(self, network: nn.Module) -> float:
        return accuracy(predict(network, self.test.images, self.context.resources.compute), self.test.labels)

    def _summary(self, designs: Sequence[Design], seeds: int, trainings: dict[str, Any]) -> dict[str, Any]:
        rows = []
        for design in designs:
            results = [trainings[self.key(design, replicate)] for replicate in range(seeds)]
            accuracies = [result["test_accuracy"] for result in results]
            rows.append(
                {
                    "number": design.number,
                    "macs": results[0]["macs"],
                    "n_params": results[0]["n_params"],
                    **self._values(design, results),
                    "val_accuracy_search": design.val_accuracy,
                    "val_accuracy_mean": statistics.fmean(r["val_accuracy"] for r in results),
                    "test_accuracy_mean": statistics.fmean(accuracies),
                    "test_accuracy_sd": statistics.stdev(accuracies) if seeds > 1 else None,
                    "test_accuracies": accuracies,
                    "n": seeds,
                    "files": [r["file"] for r in results],
                }
            )
        objectives = [OBJECTIVES[name] for name in self.context.resources.spec.objectives]
        cost = cost_of(objectives)
        rows.sort(key=lambda row: (_last(row[cost.name], cost.sign), -row["test_accuracy_mean"]))
        points = [
            [
                row["test_accuracy_mean"] if name == ACCURACY else row[name]
                for name in self.context.resources.spec.objectives
            ]
            for row in rows
        ]
        for row, on_front in zip(rows, front_mask(points, objectives), strict=True):
            row["on_front"] = bool(on_front)
        record: dict[str, Any] = {
            "seeds": seeds,
            "epochs": self.epochs,
            "n_test": len(self.test),
            "made_with": self.made_with,
            "designs": rows,
            "teacher_test_accuracy": None,
            "matches_teacher": None,
        }
        store = self.context.resources.store
        there = [teacher for teacher in self.context.designs.teachers() if teacher.artifact_id in store]
        if there:
            # The one that the search knows as the best: to choose by test images would flatter it.
            best = max(there, key=lambda teacher: store.manifest(teacher.artifact_id)["val_accuracy"])
            self._compare_with_teacher(record, best)
        return record

    def _values(self, design: Design, results: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        """The study's objectives but accuracy; None for one that trainings of before did not compute."""
        values: dict[str, float | None] = {}
        for name in self.context.resources.spec.objectives:
            known = [result[name] for result in results if name in result]
            if OBJECTIVES[name].known == "before" and not known:
                values[name] = objective_value(
                    OBJECTIVES[name], self.context.designs.measured(self._final(design))
                )
            elif name != ACCURACY:
                same = len(set(known)) == 1  # counts stay whole numbers
                values[name] = (known[0] if same else statistics.fmean(known)) if known else None
        return values

    def _compare_with_teacher(self, record: dict[str, Any], teacher: ArtifactRecipe) -> None:
        """Add a teacher's test accuracy, and the cheapest design whose mean is within its standard error."""
        source = self.context.sources.online(teacher)
        assert isinstance(source.network, nn.Module)
        found = self._test_accuracy(source.network)
        standard_error = math.sqrt(found * (1 - found) / len(self.test))
        record.update(
            teacher_test_accuracy=found, teacher_test_standard_error=standard_error, teacher_macs=source.macs
        )
        good = [row for row in record["designs"] if row["test_accuracy_mean"] >= found - standard_error]
        if good:
            row = min(good, key=lambda row: row["macs"])
            record["matches_teacher"] = {
                "number": row["number"],
                "macs": row["macs"],
                "times_cheaper": source.macs / row["macs"],
            }

    def _load(self) -> dict[str, Any]:
        context = self._context
        return load_results(self.run_dir, None if context is None else context.resources.spec.seed)

    def _store(self, record: dict[str, Any]) -> None:
        write_sealed(self.run_dir / RESULTS_FILE, record)


def _cannot(design: Design, replicate: int, why: str) -> InputError:
    return InputError(
        f"trial {design.number} cannot be retrained, with seed {replicate + 1}: {why}; leave it out"
    )


def _last(value: float | None, sign: int) -> float:
    """A key by which the best value comes first, and one that is not known last."""
    return math.inf if value is None else sign * value
