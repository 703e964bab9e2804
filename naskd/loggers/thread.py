"""A logger in a thread of its own: it never raises, and the search never waits for it before the end.

Packages that log are slow and break: MLflow's look-ups took 172 ms for an epoch of ten values and 623 ms for the
start of a trial with 40 parameters, W&B 5.3 s a trial (two processes are started for it), and a server that does not
answer would stop the search. (Ray's callbacks of these names, Ray 2.60, MLflow 3.17, wandb 0.31, medians of 5 trials
on 2 shared cores.)

A logger has one run for each job, whatever became of its workers: a job that is taken up again goes on in the same run.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from queue import SimpleQueue
from typing import Any, Protocol

from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS, one_line
from naskd.study.observer import StudyObserver
from naskd.trials.jobs import Job, SiblingResult, TrialResult

_LOG = logging.getLogger(__name__)

Scalar = str | int | float | bool

BACKLOG = 10_000
"""Epochs that may wait for a logger; more are left out of it."""

PATIENCE = 30.0
"""Seconds that the end of a search waits for a logger that does nothing."""

REST = 60.0
"""Seconds without a write after one that failed: MLflow prints a traceback of 150 lines for each."""


def flat_design(config: TrialConfig) -> dict[str, Scalar]:
    """A design as names and values, such as ``architecture.stages.0.block``; empty lists leave no name."""
    return _flat(config.to_dict(), "")


def _flat(value: Any, name: str) -> dict[str, Scalar]:
    if name.endswith("options"):
        value = dict(value)
    if isinstance(value, Mapping):
        children = [(str(key), child) for key, child in value.items()]
    elif isinstance(value, list | tuple):
        children = [(str(index), child) for index, child in enumerate(value)]
    else:
        return {name: value}
    return {
        path: scalar
        for key, child in children
        for path, scalar in _flat(child, f"{name}.{key}" if name else key).items()
    }


@dataclass(frozen=True)
class LoggedRun:
    """What a logger calls a run.

    Args:
        name: ``trial-<number>``, with ``-sibling-<n>`` of a design that was trained in that trial; or what is made and
            its content id.
        kind: ``trial`` or ``artifact``.
        design: Names and values.
    """

    name: str
    kind: str
    design: Mapping[str, Scalar]


class RunLog(Protocol):
    """A run in one logger. Every method may raise."""

    def log(self, epoch: int, values: Mapping[str, int | float]) -> None:
        """Values of one epoch; epochs only grow."""

    def close(self, status: str, reason: str, final: Mapping[str, int | float]) -> None:
        """The end of the run.

        Args:
            status: ``complete``, ``stopped``, ``failed``, or ``interrupted`` with the whole search.
            reason: Why; one line or "".
            final: The last value of everything, what was logged before included.
        """


OpenLog = Callable[[LoggedRun], RunLog]


@dataclass
class _Run:
    """What is known of a job while it runs."""

    run: LoggedRun
    log: RunLog | None = None
    epoch: int = 0
    status: str = "interrupted"
    reason: str = ""
    final: dict[str, int | float] = field(default_factory=dict)

    def take(self, epoch: int, metrics: Mapping[str, Any]) -> dict[str, int | float]:
        """Remember an epoch; the values that are new in it come back."""
        # A worker that takes up a job repeats epochs since its checkpoint, with the same values.
        if epoch <= self.epoch:
            return {}
        values = _numbers(metrics)
        self.epoch = epoch
        self.final.update(values)
        return values

    def end(self, result: TrialResult) -> None:
        self.status, self.reason = result.status, result.reason
        self.final.update(_numbers({"train_macs": result.train_macs, **result.metrics}))


class JobLogger(StudyObserver):
    """Tells one logger of the jobs of a search.

    Args:
        name: Of the logger.
        connect: Imports the package and returns what opens a run; tried again until it succeeds.
    """

    def __init__(self, name: str, connect: Callable[[], OpenLog]) -> None:
        self._name = name
        self._connect = connect
        self._open: OpenLog | None = None
        self._runs: dict[str, _Run] = {}
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._handled = 0
        self._warned = False
        self._rest_until = 0.0

    @property
    def name(self) -> str:
        """See :class:`~naskd.study.observer.StudyObserver`."""
        return self._name

    def asked(self, job: Job) -> None:
        """See :class:`~naskd.study.observer.StudyObserver`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"naskd-{self.name}", daemon=True)
            self._thread.start()
        self._events.put(partial(self._begin, job))

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """See :class:`~naskd.study.observer.StudyObserver`."""
        if self._events.qsize() >= BACKLOG:
            self._warn(f"has {BACKLOG} epochs waiting; further ones are left out")
        else:
            self._events.put(partial(self._log_epoch, job, epoch, dict(metrics)))

    def told(self, job: Job, result: TrialResult) -> None:
        """See :class:`~naskd.study.observer.StudyObserver`."""
        self._events.put(partial(self._end, job, result))
        for place, sibling in enumerate(result.siblings, start=1):
            self._events.put(partial(self._log_sibling, job, place, sibling))

    def closed(self) -> None:
        """Wait for what is still to be written, as long as something is written."""
        if self._thread is None:
            return
        self._events.put(None)
        while True:
            handled = self._handled
            self._thread.join(PATIENCE)
            if not self._thread.is_alive():
                return
            if handled == self._handled:
                _LOG.warning(
                    "%s did nothing for %g s; the search ends without its last values", self.name, PATIENCE
                )
                return
            _LOG.info("%s has %d events to write; Ctrl-C ends without them", self.name, self._events.qsize())

    # --- in the thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            self._attempt(event)
        self._rest_until = 0.0
        for job_id in list(self._runs):
            self._attempt(partial(self._close, job_id))

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except USERS as error:  # whatever a package raises, the search is worth more than its log
            self._warn(f"failed ({one_line(error)})")
            self._rest_until = time.monotonic() + REST
        self._handled += 1

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("%s %s; the search goes on, and values may be missing there", self.name, what)

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._rest_until

    def _begin(self, job: Job) -> None:
        run = self._run_of(job)
        if not self._rests:
            self._log_of(run)

    def _log_epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        run = self._run_of(job)
        values = run.take(epoch, metrics)
        if values and not self._rests:
            self._log_of(run).log(run.epoch, values)

    def _end(self, job: Job, result: TrialResult) -> None:
        self._run_of(job).end(result)
        self._close(job.job_id)

    def _log_sibling(self, job: Job, place: int, sibling: SiblingResult) -> None:
        """A design that was trained in the trial of another one, from its first epoch to its end."""
        key, result = f"{job.job_id}-sibling-{place}", sibling.result
        facts = {"trained_in": int(job.job_id), "seed": result.seed}
        run = self._runs[key] = _Run(LoggedRun(f"trial-{key}", "trial", _described(facts, sibling.config)))
        for row in result.curve:
            values = run.take(int(row["epoch"]), row)
            if values and not self._rests:
                self._log_of(run).log(run.epoch, values)
        run.end(result)
        self._close(key)

    def _close(self, job_id: str) -> None:
        # What could not be closed is kept, and closed at the end of the search.
        run = self._runs[job_id]
        if not self._rests:
            self._log_of(run).close(run.status, run.reason, run.final)
            del self._runs[job_id]

    def _run_of(self, job: Job) -> _Run:
        if job.job_id not in self._runs:
            self._runs[job.job_id] = _Run(_logged_run(job))
        return self._runs[job.job_id]

    def _log_of(self, run: _Run) -> RunLog:
        if self._open is None:
            self._open = self._connect()
        if run.log is None:
            run.log = self._open(run.run)
        return run.log


def unlike(old: Mapping[str, int | float], new: Mapping[str, int | float]) -> dict[str, int | float]:
    """What is in `new` and not the same in `old`."""
    return {name: value for name, value in new.items() if old.get(name) != value}


def _logged_run(job: Job) -> LoggedRun:
    label = "trial" if job.kind == "trial" else job.label or job.kind
    name = re.sub(r"[^\w.-]+", "-", f"{label}-{job.job_id}")  # it is a folder's name too
    # The configuration of an artifact's job is a design that wants it, not its own.
    if job.kind == "artifact" or job.config is None:
        return LoggedRun(name, job.kind, {})
    facts = {"number": int(job.job_id), "seed": job.seed}
    return LoggedRun(name, job.kind, _described(facts, job.config))


def _described(facts: Mapping[str, int], config: TrialConfig) -> dict[str, Scalar]:
    return {**facts, "config_id": config.config_id, **flat_design(config)}


def _numbers(values: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers among `values`, under names that all loggers take."""
    return {
        re.sub(r"[^\w./-]", "_", name): value if isinstance(value, int) else float(value)
        for name, value in values.items()
        if isinstance(value, Real) and not isinstance(value, bool) and name != "epoch"
    }
