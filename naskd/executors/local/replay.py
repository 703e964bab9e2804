"""A search against a recorded table, in made-up time: no images, no networks, no waiting.

For studies of samplers and stopping rules: what a thousand trainings have shown is looked up, and days pass in seconds.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from naskd.executors.attempts import POLL_SECONDS
from naskd.spec.clock import FakeClock
from naskd.spec.design import Cost, TrialConfig
from naskd.spec.errors import InputError, RunError
from naskd.spec.study import StudySpec
from naskd.spec.userfile import file_content_id, load_function
from naskd.trials.facts import World
from naskd.trials.jobs import Decision, Job, TrialResult, TrialSource
from naskd.trials.measures import Measured
from naskd.trials.prerequisites import ArtifactRecipe


@dataclass(frozen=True)
class Recorded:
    """What a training was, or would be.

    Args:
        curve: One mapping for each epoch, in order: ``val_accuracy``, losses; at least one.
        metrics: As of the end: all objectives of the study.
        train_macs: Of the whole training; a part of it costs its share.
        epoch_seconds: That an epoch takes.
    """

    curve: tuple[Mapping[str, float], ...]
    metrics: Mapping[str, float]
    train_macs: int = 0
    epoch_seconds: float = 1.0


Table = Callable[[TrialConfig], Recorded] | Mapping[str, Recorded]
"""Of designs, or by their ``config_id``."""


class ReplayFacts:
    """What a study asks of the world outside, without one: every loss fits, and no network has to be made.

    Args:
        cost: Of a design.
        in_channels, resolution, n_classes: Of the images; see :class:`~naskd.trials.measures.Measured`.
    """

    def __init__(
        self,
        cost: Callable[[TrialConfig], Cost],
        *,
        in_channels: int = 3,
        resolution: int = 32,
        n_classes: int = 10,
    ) -> None:
        self.design_cost = cost
        self._shape = (in_channels, resolution, n_classes)

    def measured(self, config: TrialConfig) -> Measured:
        """See :class:`~naskd.trials.facts.DesignFacts`."""
        return Measured(config, self.design_cost(config), *self._shape)

    def design_problems(self, config: TrialConfig) -> list[str]:
        """None: the table has its design."""
        return []

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        """None: what was trained had its teacher."""
        return []

    def teachers(self) -> list[ArtifactRecipe]:
        """None: likewise."""
        return []

    def has_artifact(self, artifact_id: str) -> bool:
        """Always."""
        return True


@dataclass(order=True)
class _Training:
    """A job at a worker, until the end of its next epoch."""

    at: float
    order: int
    job: Job = field(compare=False)
    recorded: Recorded = field(compare=False)
    epoch: int = field(default=0, compare=False)

    def result(self, status: Literal["complete", "stopped"]) -> TrialResult:
        recorded, epochs = self.recorded, len(self.recorded.curve)
        curve = tuple({"epoch": n, **point} for n, point in enumerate(recorded.curve[: self.epoch], start=1))
        spent = recorded.train_macs * self.epoch // epochs
        metrics = dict(recorded.metrics)
        if status == "stopped":
            metrics.update({name: value for name, value in curve[-1].items() if name in metrics})
        return TrialResult(
            status,
            self.job.seed,
            "" if status == "complete" else f"stopped by the stopping rule after epoch {self.epoch}",
            metrics,
            curve,
            train_macs=spent,
            spent_macs=spent,
            wall_seconds=recorded.epoch_seconds * self.epoch,
        )


class ReplayExecutor:
    """Runs a study against a table, with as many workers as wanted; see :class:`~naskd.executors.Executor`.

    Every epoch is reported, and results are told, in the order of the clock; of two at the same moment the job that
    was asked for first comes first. Shared networks, if the study's facts know of any, take no time and cost nothing.

    Args:
        table: What was recorded.
        clock: The one that the study has. It goes on from the end of one epoch to the next.
        workers: Trainings at once, at least 1.
    """

    def __init__(self, table: Table, clock: FakeClock, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; allowed: at least 1")
        self._table = table
        self._clock = clock
        self._workers = workers
        self._asked = 0

    def run(self, source: TrialSource) -> None:
        """See :class:`~naskd.executors.Executor`.

        Raises:
            RunError: The table does not have a design that the study wants.
        """
        running: list[_Training] = []
        while True:
            while len(running) < self._workers and (training := self._take(source)) is not None:
                heapq.heappush(running, training)
            if running:
                self._next_epoch(source, running)
            elif source.finished:
                return
            else:
                self._clock.sleep(POLL_SECONDS)

    def _take(self, source: TrialSource) -> _Training | None:
        """A training for a free worker, if there is one."""
        while (job := source.ask()) is not None:
            if job.kind == "trial":
                recorded = self._look_up(job)
                self._asked += 1
                return _Training(self._clock.monotonic() + recorded.epoch_seconds, self._asked, job, recorded)
            source.tell(job, TrialResult("complete", job.seed))
        return None

    def _look_up(self, job: Job) -> Recorded:
        assert job.config is not None
        if callable(self._table):
            return self._table(job.config)
        try:
            return self._table[job.config.config_id]
        except KeyError:
            raise RunError(
                f"the table has no design {job.config.config_id}, which trial {job.job_id} wants"
            ) from None

    def _next_epoch(self, source: TrialSource, running: list[_Training]) -> None:
        """Go on to the end of the epoch that ends first."""
        training = heapq.heappop(running)
        self._clock.advance_to(training.at)
        training.epoch += 1
        job, curve = training.job, training.recorded.curve
        decision = source.report(job, training.epoch, {"epoch": training.epoch, **curve[training.epoch - 1]})
        if decision is Decision.STOP:
            source.tell(job, training.result("stopped"))
        elif training.epoch == min(len(curve), job.until_epoch):
            source.tell(job, training.result("complete"))
        else:
            training.at = self._clock.monotonic() + training.recorded.epoch_seconds
            heapq.heappush(running, training)


@dataclass(frozen=True)
class RecordedTable:
    """Trainings that were recorded, as the function returns it that ``execution.table`` names.

    Args:
        trainings: Of designs, or by their ``config_id``.
        cost: Of a design's deployed network.
        in_channels, resolution, n_classes: Of the images that were trained on.
        n_train: How many there were.
    """

    trainings: Table
    cost: Callable[[TrialConfig], Cost]
    in_channels: int = 3
    resolution: int = 32
    n_classes: int = 10
    n_train: int = 1


def recorded_world(spec: StudySpec) -> World:
    """The table that a study names, with a clock of its own.

    Raises:
        InputError: The file or the function is not there, or it returns something else.
    """
    reference = str(spec.execution.option("table"))
    table = load_function(reference, spec.base)()
    if not isinstance(table, RecordedTable):
        raise InputError(
            f"execution.table {reference!r} returns {type(table).__name__}; wanted a RecordedTable"
        )
    clock = FakeClock()
    executor = ReplayExecutor(table.trainings, clock, int(spec.execution.option("workers")))
    shape = {"in_channels": table.in_channels, "resolution": table.resolution, "n_classes": table.n_classes}
    content = file_content_id(spec.resolve(reference.rpartition(":")[0]))
    return World(
        ReplayFacts(table.cost, **shape),
        table.n_classes,
        table.n_train,
        content,
        content,
        clock,
        executor.run,
    )
