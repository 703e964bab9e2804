"""What a running search is doing, in a file beside its ledger, so that others can watch it."""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from naskd.report.units import training_name
from naskd.spec.objectives import ACCURACY
from naskd.store.files import beside
from naskd.study.observer import StudyObserver
from naskd.study.snapshot import Snapshot
from naskd.trials.jobs import Job, TrialResult

STATUS_FILE = "status.json"
WRITE_SECONDS = 0.5
"""Least time between two writings of what changes with each epoch."""


@dataclass(frozen=True)
class RunningJob:
    """A training that goes on.

    Args:
        what: Such as ``trial 17``, ``teacher`` or ``assistant``; see :func:`~naskd.report.units.training_name`.
        config: Its design, as ``TrialConfig.to_dict`` writes it; None for a teacher or an assistant.
        epoch: That it has done.
        epochs: In all; 0 where that is not known.
        val_accuracy: After its last epoch; None before the first.
    """

    what: str
    config: Mapping[str, Any] | None
    epoch: int
    epochs: int
    val_accuracy: float | None


@dataclass(frozen=True)
class Status:
    """Where a search stands.

    Args:
        snapshot: In numbers.
        running: Its trainings, in the order in which they began.
        trials: Its budget, or None where that is not in trials.
        pid: Of the process that searches.
        written: Seconds since the epoch.
    """

    snapshot: Snapshot
    running: tuple[RunningJob, ...]
    trials: int | None
    pid: int
    written: float


class StatusFile(StudyObserver):
    """Keeps the file while a search runs, and takes it away at the end.

    Args:
        run_dir: Of the run.
        trials: The budget, or None.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, run_dir: Path, trials: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = run_dir / STATUS_FILE
        self._trials = trials
        self._clock = clock
        self._written = -WRITE_SECONDS
        self._running: dict[str, RunningJob] = {}
        self._changed = False

    def asked(self, job: Job) -> None:
        """See :class:`StudyObserver`."""
        is_trial = job.kind == "trial"
        what = training_name(job.job_id, job.continues or None) if is_trial else job.label
        config = job.config.to_dict() if is_trial and job.config is not None else None
        self._running[job.job_id] = RunningJob(what, config, 0, job.until_epoch, None)
        self._changed = True

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """See :class:`StudyObserver`."""
        if job.job_id in self._running:
            self._running[job.job_id] = replace(
                self._running[job.job_id], epoch=epoch, val_accuracy=metrics.get(ACCURACY)
            )

    def told(self, job: Job, result: TrialResult) -> None:
        """See :class:`StudyObserver`."""
        self._running.pop(job.job_id, None)
        self._changed = True

    def looked(self, snapshot: Snapshot) -> None:
        """See :class:`StudyObserver`."""
        now = self._clock()
        if not self._changed and now - self._written < WRITE_SECONDS:
            return
        self._written, self._changed = now, False
        status = Status(snapshot, tuple(self._running.values()), self._trials, os.getpid(), time.time())
        # It is of this moment: a power cut may take it, so that nothing waits for the disk.
        partial = beside(self._path)
        try:
            partial.write_text(json.dumps(asdict(status)))
            os.replace(partial, self._path)
        finally:
            partial.unlink(missing_ok=True)

    def closed(self) -> None:
        """See :class:`StudyObserver`."""
        self._path.unlink(missing_ok=True)


def read_status(run_dir: Path) -> Status | None:
    """What a search says of itself; None where none runs that would, or the file is of another version.

    A process that was killed leaves its last word: :func:`naskd.runs.listing.in_use` tells.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        found = json.loads((run_dir / STATUS_FILE).read_text())
        known = {field.name for field in fields(Snapshot)}
        snapshot = Snapshot(**{name: value for name, value in found["snapshot"].items() if name in known})
        running = tuple(RunningJob(**job) for job in found["running"])
        return Status(snapshot, running, found["trials"], found["pid"], found["written"])
    return None
