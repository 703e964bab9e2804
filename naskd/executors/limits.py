"""How long a job may take, for all executors."""

import math
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
        before: Seconds that earlier sessions of the search took: so much less of its budget is left.
    """

    def __init__(
        self, spec: StudySpec, clock: Callable[[], float] = time.monotonic, before: float = 0.0
    ) -> None:
        self._execution = spec.execution
        self._budget = spec.budget.seconds
        self._clock = clock
        self._budget_ends = math.inf if self._budget is None else clock() + self._budget - before
        self._longest = 0.0

    @property
    def budget_left(self) -> float:
        """Seconds until ``budget.seconds`` are over, below 0 where they are; infinite where the study sets none."""
        return self._budget_ends - self._clock()

    @budget_left.setter
    def budget_left(self, seconds: float) -> None:
        # A worker on another machine begins later than its search, whose clock it does not see.
        self._budget_ends = self._clock() + seconds

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
        seconds, reason = self.left(watch)
        return reason if seconds <= 0 else ""

    def left(self, watch: Watch) -> tuple[float, str]:
        """Seconds until a job is overdue if it ends no epoch before, 0 or less where it is; and why it then is."""
        limits, now = self._execution, self._clock()
        ends = [
            (
                watch.sign + limits.epoch_seconds,
                f"an epoch took longer than execution.epoch_seconds = {limits.epoch_seconds:g}",
            )
        ]
        if limits.trial_seconds is not None and watch.job.kind == "trial":
            reason = f"took longer than execution.trial_seconds = {limits.trial_seconds:g}"
            ends.append((watch.began + limits.trial_seconds, reason))
        if self._budget is not None:
            most = min(self._budget, PATIENCE * self._longest) if self._longest else self._budget
            end = max(self._budget_ends, watch.sign + max(LEAST_PATIENCE, most))
            silent = max(now, end) - watch.sign
            reason = f"budget.seconds = {self._budget:g} are over, and no epoch ended for {silent:.0f} s"
            ends.append((end, reason))
        end, reason = min(ends)
        return end - now, reason

    def start_overdue(self, since: float) -> str:
        """Why a worker that was started then counts as one that cannot begin; "" while it has time."""
        seconds = self._execution.start_seconds
        late = self._clock() - since >= seconds
        return f"it took longer than execution.start_seconds = {seconds:g}" if late else ""
