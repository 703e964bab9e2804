"""A search against a recorded table, in made-up time: no images, no networks, no waiting.

For studies of samplers and stopping rules: what a thousand trainings have shown is looked up, and days pass in seconds.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from naskd.executors.attempts import POLL_SECONDS
from naskd.spec.clock import FakeClock
from naskd.spec.design import Cost, TrialConfig, content_id
from naskd.spec.errors import InputError, RunError
from naskd.spec.study import StudySpec
from naskd.spec.userfile import file_content_id, load_function
from naskd.tables.files import TABLE_FILES, read_table
from naskd.tables.recorded import Account, Recorded, RecordedTable, Trainings, found_in
from naskd.trials.facts import TrainingMacs, World
from naskd.trials.jobs import Decision, Job, TrialResult, TrialSource
from naskd.trials.measures import Measured
from naskd.trials.prerequisites import ArtifactRecipe


class ReplayFacts:
    """What a study asks of the world outside, without one: every loss fits, and no network has to be made.

    Args:
        cost: Of a design.
        table: What was recorded.
        in_channels, resolution, n_classes: Of the images; see :class:`~naskd.trials.measures.Measured`.
        n_val: Images that accuracies were measured on; 0 where that is not known.
    """

    def __init__(
        self,
        cost: Callable[[TrialConfig], Cost],
        table: Trainings | None = None,
        *,
        in_channels: int = 3,
        resolution: int = 32,
        n_classes: int = 10,
        n_val: int = 0,
    ) -> None:
        self.design_cost = cost
        self.n_val = n_val
        self._table = table if table is not None else {}
        self._shape = (in_channels, resolution, n_classes)

    def measured(self, config: TrialConfig) -> Measured:
        """See :class:`~naskd.trials.facts.DesignFacts`."""
        return Measured(config, self.design_cost(config), *self._shape)

    def design_problems(self, config: TrialConfig) -> list[str]:
        """None: the table has its design."""
        return []

    def siblings(self, config: TrialConfig) -> list[TrialConfig]:
        """None: a table has each design's own training."""
        return []

    def training_macs(self, config: TrialConfig) -> TrainingMacs:
        """As recorded; 0 of a design that is not there."""
        recorded = found_in(self._table, config)
        if recorded is None:
            return TrainingMacs(0.0)
        needed = [
            (name, float(macs), epoch)
            for epoch, shared in enumerate(recorded.shared, start=1)
            for name, macs in shared.items()
        ]
        # What two epochs name is made before the first of them.
        spans = {name: (epoch, epoch) for name, _, epoch in reversed(needed)}
        return TrainingMacs(float(recorded.train_macs), {name: macs for name, macs, _ in needed}, spans=spans)

    def recipes(self, config: TrialConfig) -> list[ArtifactRecipe]:
        """None: what was trained had its teacher."""
        return []

    def teachers(self) -> list[ArtifactRecipe]:
        """None: likewise."""
        return []

    def has_artifact(self, artifact_id: str) -> bool:
        """Always."""
        return True


@runtime_checkable
class Resumed(Protocol):
    """A source that goes on with what earlier sessions have trained."""

    def trained(self) -> Iterable[tuple[Job, int]]:
        """See :meth:`naskd.study.study.Study.trained`."""


@dataclass(order=True)
class _Training:
    """A job at a worker, until the end of its next epoch."""

    at: float
    order: int
    job: Job = field(compare=False)
    recorded: Recorded = field(compare=False)
    began: int = field(default=0, compare=False)
    epoch: int = field(default=0, compare=False)
    first_paid: int = field(default=0, compare=False)

    def result(self, status: Literal["complete", "stopped"]) -> TrialResult:
        recorded = self.recorded
        curve = tuple({"epoch": n, **point} for n, point in enumerate(recorded.curve[: self.epoch], start=1))
        spent = recorded.macs_until(self.epoch)
        own = spent - recorded.macs_until(self.began)
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
            spent_macs=own + self.first_paid,
            wall_seconds=recorded.epoch_seconds * (self.epoch - self.began),
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

    def __init__(self, table: Trainings, clock: FakeClock, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; allowed: at least 1")
        self._table = table
        self._clock = clock
        self._workers = workers
        self._asked = 0
        self._account = Account()
        self._reached: dict[str, int] = {}
        """Epochs of paused trials, by number: what they have paid is not paid again."""

    def run(self, source: TrialSource) -> None:
        """See :class:`~naskd.executors.Executor`.

        Raises:
            RunError: The table does not have a design that the study wants, or has it with other epochs.
        """
        if isinstance(source, Resumed):
            self._take_in(source)
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
                done = self._reached.get(job.continues, 0)
                at = self._clock.monotonic() + recorded.epoch_seconds
                return _Training(at, self._asked, job, recorded, done, done)
            source.tell(job, TrialResult("complete", job.seed))
        return None

    def _take_in(self, source: "Resumed") -> None:
        """What earlier sessions have had made is paid, and so are the epochs of what they have paused."""
        for job, epochs in source.trained():
            recorded = self._look_up(job)
            for epoch in range(1, epochs + 1):
                self._account.shared_macs(recorded, epoch)
            self._reached[job.job_id] = epochs

    def _look_up(self, job: Job) -> Recorded:
        assert job.config is not None
        if (recorded := found_in(self._table, job.config)) is None:
            raise RunError(f"the table has no design {job.config.config_id}, which trial {job.job_id} wants")
        if job.replicate > len(recorded.again):
            raise RunError(
                f"budget.front_seeds: trial {job.job_id} wants training {job.replicate + 1} of design "
                f"{job.config.config_id}; the table has {1 + len(recorded.again)}"
            )
        recorded = recorded.again[job.replicate - 1] if job.replicate else recorded
        if (epochs := len(recorded.curve)) != job.until_epoch:
            what, ending = "few" if epochs > job.until_epoch else "many", "" if epochs == 1 else "s"
            raise RunError(
                f"the table has {epochs} epoch{ending} of design {job.config.config_id}, and trial {job.job_id} is to "
                f"have {job.until_epoch}: what it would be after so {what} is not recorded; set epochs = {epochs}"
            )
        return recorded

    def _next_epoch(self, source: TrialSource, running: list[_Training]) -> None:
        """Go on to the end of the epoch that ends first."""
        training = heapq.heappop(running)
        self._clock.advance_to(training.at)
        training.epoch += 1
        training.first_paid += self._account.shared_macs(training.recorded, training.epoch)
        job, curve = training.job, training.recorded.curve
        decision = source.report(job, training.epoch, {"epoch": training.epoch, **curve[training.epoch - 1]})
        if decision is not Decision.CONTINUE:
            if decision is Decision.PAUSE:
                self._reached[job.job_id] = training.epoch
            source.tell(job, training.result("stopped"))
        elif training.epoch == len(curve):
            source.tell(job, training.result("complete"))
        else:
            training.at = self._clock.monotonic() + training.recorded.epoch_seconds
            heapq.heappush(running, training)


def recorded_world(spec: StudySpec) -> World:
    """The table that a study names, with a clock of its own.

    Raises:
        InputError: The file or the function is not there, or it returns something else.
    """
    table, content = _table(spec)
    clock = FakeClock()
    executor = ReplayExecutor(table.trainings, clock, int(spec.execution.option("workers")))
    shape = {name: getattr(table, name) for name in ("in_channels", "resolution", "n_classes", "n_val")}
    return World(
        ReplayFacts(table.cost, table.trainings, **shape),
        table.n_classes,
        table.n_train,
        content,
        content,
        clock,
        executor.run,
    )


def _table(spec: StudySpec) -> tuple[RecordedTable, str]:
    """The table that a study names, and what names its content."""
    reference = str(spec.execution.option("table"))
    if ":" not in reference:
        folder = spec.resolve(reference)
        table = read_table(folder).recorded(spec.seed)
        return table, content_id([file_content_id(folder / name) for name in TABLE_FILES])
    table = load_function(reference, spec.base)()
    if not isinstance(table, RecordedTable):
        raise InputError(
            f"execution.table {reference!r} returns {type(table).__name__}; wanted a RecordedTable"
        )
    return table, file_content_id(spec.resolve(reference.rpartition(":")[0]))
