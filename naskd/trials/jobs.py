"""What travels between a study, an executor and a trial. Plain data, picklable, torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Literal, Protocol

from naskd.spec.design import TrialConfig

OTHER_NETWORK = "other_network"
"""In the row of an epoch after which another network was evaluated than the one that leaves in the end: 1."""


def own_from(curve: Sequence[Mapping[str, float]]) -> int:
    """Epochs of a curve, from its beginning, that tell of another network than the one that leaves."""
    return max((epoch for epoch, row in enumerate(curve, start=1) if OTHER_NETWORK in row), default=0)


def training_key(config_id: str, seed: int) -> str:
    """Names one training of a student, whatever its number in a ledger."""
    return f"{config_id}-{seed}"


class Decision(Enum):
    """What a source answers to a report of a running job."""

    CONTINUE = "continue"
    STOP = "stop"
    PAUSE = "pause"
    """It stops, and may go on later from where it is."""


@dataclass(frozen=True)
class Job:
    """One training to be done by whoever asks.

    Args:
        job_id: Unique within the study; for a trial its number as text, for an artifact its content id.
        kind: ``trial`` trains a student; ``artifact`` makes a teacher or an assistant that trials share.
        config: The design to train; for an artifact the design that wants it, None for the study's teacher
            when no design has asked yet.
        seed: Of the training.
        until_epoch: Where to stop, at most the schedule's horizon.
        requires: Content ids of the artifacts that must exist before the job can run.
        label: Of an artifact, for people: ``teacher`` or ``assistant``.
        trained: Whether making an artifact is a training; otherwise it is loaded.
        replicate: Of a trial: how many trainings of the same design, each with its seed, came before.
        continues: Of a trial: number of the paused one whose training it goes on with; empty where it begins.
        place: Of a trial of peers that train apart: which of them this trains, from 0, which leaves. None: all, in one
            training. Only :class:`~naskd.trials.groups.Groups` sets it.
        patient: Of such a one: whether it keeps its worker for a while when it has to wait for what others tell, since
            there are workers for all of them; otherwise it gives it back at once.
        siblings: Of a trial: other designs that its training gives, and of which the study wants to know, too.
    """

    job_id: str
    kind: Literal["trial", "artifact"]
    config: TrialConfig | None
    seed: int
    until_epoch: int
    requires: tuple[str, ...] = ()
    label: str = ""
    trained: bool = True
    replicate: int = 0
    continues: str = ""
    place: int | None = None
    patient: bool = False
    siblings: tuple[TrialConfig, ...] = ()


@dataclass(frozen=True)
class TrialResult:
    """What came of a training. Failures are data.

    Args:
        status: ``complete``, ``failed`` or ``stopped`` (by a stopping rule).
        reason: Why it failed or was stopped, one line; empty when complete.
        metrics: By name: ``val_accuracy`` (fraction in [0, 1]), ``macs``, ``n_params``, ``size_bytes``, ...
        curve: One mapping for each finished epoch: ``epoch``, ``val_accuracy``, ``loss``, one entry a loss term or
            measure; :data:`OTHER_NETWORK` where another network was evaluated than the one that leaves.
        train_macs: Multiply-accumulates of training and evaluation, counted as if no teacher output were
            remembered, so that it compares designs; from its first epoch, whoever did it.
        spent_macs: What was really executed for it: with a bank, most trials never run their teacher. Of a trial that
            goes on with a paused one, its own part; likewise what was asked of teachers, and the time.
        lost_macs: The part of `spent_macs` that workers had done when they died, and others have done again, or nobody.
        asked_images: Images that it wanted to know of what a teacher says, one count a teacher and a step.
        forward_images: Images that a teacher was really run on for it; filling a bank runs it on all of an epoch.
        bank_bytes: Size of each bank that it heard, by its id: of the part that its process has met.
        wall_seconds: Of this training, teacher loading excluded.
        seed: Of the training.
        teacher_agreement: Fraction of validation images on which student and teacher name the same class;
            None without a teacher.
        warnings: What should be known of a network that was made, one line each.
        error: The traceback of a failure.
        out_of_memory: Whether it failed because a device was full, so that it may fit when alone on one.
        device_lost: Whether it failed and its process can use its device no more, for its own fault or a neighbour's.
        disk_full: Whether it failed because a disk was full: nothing can go on before there is room.
        environment: Versions, device and threads.
        paused: Of a stopped one: whether it may go on later.
        sha256: Of the file with the network that the job has stored: a teacher's or an assistant's, or a trial's
            student, where it is kept; empty where none is.
        measures: What the design's scheme has measured of the trained student, by name; they are among the metrics too.
        siblings: Of a complete one: what the job's other designs have come to by the same training. What that took is
            booked here alone, their evaluations included.
    """

    status: Literal["complete", "failed", "stopped"]
    seed: int
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[Mapping[str, float], ...] = ()
    train_macs: int = 0
    spent_macs: int = 0
    lost_macs: int = 0
    asked_images: int = 0
    forward_images: int = 0
    bank_bytes: Mapping[str, int] = field(default_factory=dict)
    wall_seconds: float = 0.0
    teacher_agreement: float | None = None
    warnings: tuple[str, ...] = ()
    error: str = ""
    out_of_memory: bool = False
    device_lost: bool = False
    disk_full: bool = False
    environment: Mapping[str, str | int | float] = field(default_factory=dict)
    paused: bool = False
    sha256: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    siblings: "tuple[SiblingResult, ...]" = ()

    @property
    def blames_device(self) -> bool:
        """Whether it may do better alone on a device."""
        return self.out_of_memory or self.device_lost

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        found = asdict(replace(self, siblings=()))
        del found["siblings"]
        if self.siblings:
            found["siblings"] = [one.to_dict() for one in self.siblings]
        return found

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "TrialResult":
        """The inverse of :meth:`to_dict`."""
        listed = {key: tuple(data.get(key, ())) for key in ("curve", "warnings")}
        siblings = tuple(SiblingResult.from_dict(one) for one in data.get("siblings", ()))
        return TrialResult(**{**data, **listed, "siblings": siblings})


@dataclass(frozen=True)
class SiblingResult:
    """What a training has shown of another design than the one that it was begun for.

    Args:
        config: That design.
        result: ``complete`` or ``failed``, as if it had been trained by itself, with the same bits; but nothing was
            spent on it.
    """

    config: TrialConfig
    result: TrialResult

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"config": self.config.to_dict(), "result": self.result.to_dict()}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "SiblingResult":
        """The inverse of :meth:`to_dict`."""
        return SiblingResult(TrialConfig.from_dict(data["config"]), TrialResult.from_dict(data["result"]))


@dataclass(frozen=True)
class Waiting(TrialResult):
    """A peer cannot go on before others have told what they are; it has left its state and gives its worker back.

    Args:
        after: Epochs that these must have done.
    """

    after: int = 0


class TrialSource(Protocol):
    """Where an executor pulls its work from."""

    def ask(self) -> Job | None:
        """The next job, or None when there is none (now, or for good: see :attr:`finished`)."""

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """Tell an epoch's metrics; the answer says whether the job goes on."""

    def tell(self, job: Job, result: TrialResult) -> None:
        """Book the result of a job. Telling the same job twice is an error."""

    @property
    def finished(self) -> bool:
        """True when no job will come any more, whatever the running ones do."""
