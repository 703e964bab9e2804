"""How long a job may take, for all executors."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from naskd.spec.study import StudySpec
from naskd.trials.jobs import Job

PATIENCE = 10
"""Epochs' worth of time, of the longest epoch so far, in which a trial must end one when the budget is over."""
LEAST_PATIENCE = 30.0
"""Seconds; at least so long."""


@dataclass
class Watch:
    """A job that runs.

    Args:
        job: What is done.
        began: When, by :func:`time.monotonic`.
        sign: When it last ended an epoch, or began.
    """

    job: Job
    began: float
    sign: float = field(init=False)

    def __post_init__(self) -> None:
        self.sign = self.began


class TimeLimits:
    """The limits of a study's ``[execution]``, and what follows from its ``budget.seconds``.

    A search waits for the trials that run when its time is over. One that ends no epoch any more would keep it.

    Args:
        spec: The study.
        clock: Seconds since any moment.
    """

    def __init__(self, spec: StudySpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._execution = spec.execution
        self._budget = spec.budget.seconds
        self._clock = clock
        self._opened = clock()
        self._longest = 0.0

    def begin(self, job: Job) -> Watch:
        """A job is taken up by who is ready to work."""
        return Watch(job, self._clock())

    def epoch(self, watch: Watch) -> None:
        """It has ended an epoch."""
        now = self._clock()
        self._longest = max(self._longest, now - watch.sign)
        watch.sign = now

    def overdue(self, watch: Watch) -> str:
        """Why a job is to be ended; "" while it has time."""
        limits, now = self._execution, self._clock()
        trial = limits.trial_seconds if watch.job.kind == "trial" else None
        if trial is not None and now - watch.began >= trial:
            return f"took longer than execution.trial_seconds = {trial:g}"
        silent = now - watch.sign
        if silent >= limits.epoch_seconds:
            return f"an epoch took longer than execution.epoch_seconds = {limits.epoch_seconds:g}"
        if self._budget is not None and now - self._opened >= self._budget:
            most = min(self._budget, PATIENCE * self._longest) if self._longest else self._budget
            if silent >= max(LEAST_PATIENCE, most):
                return f"budget.seconds = {self._budget:g} are over, and no epoch ended for {silent:.0f} s"
        return ""

    def start_overdue(self, since: float) -> str:
        """Why a worker that was started then counts as one that cannot begin; "" while it has time."""
        seconds = self._execution.start_seconds
        late = self._clock() - since >= seconds
        return f"it took longer than execution.start_seconds = {seconds:g}" if late else ""
