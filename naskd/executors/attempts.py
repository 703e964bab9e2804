"""What becomes of a job whose worker may die: tried again from its checkpoint, run alone, or failed. For all executors.

An attempt is one try at a job. What is to be tried again comes before any new job: others may wait for it.
"""

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Protocol

from naskd.executors.limits import TimeLimits, Watch
from naskd.spec.errors import RunError
from naskd.spec.interrupts import heed
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult, TrialSource
from naskd.trials.outcome import failed, forget

_LOG = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How long nobody asks again after the source had nothing, unless something was told in between."""


class WorkerError(RunError):
    """No worker can begin, or none can go on, so no trial can run; the message is one line for the user."""


@dataclass
class Attempt:
    """A job on its way through a worker.

    Args:
        job: What is done.
        number: Of the attempt, from 1.
        deaths: Workers that died of it, or with it; not those of retries that had got further.
        reached: The last epoch that any of them has done.
        before: The same, of the workers before the last one.
        alone: Whether it wants a device that nobody else uses.
        result: The last one that a worker reported, of this try or an earlier one.
        paused: Whether the source has said that it may go on later.
        watch: Since when a worker does it; None while none does.
        spent: MACs after each epoch that is not lost, by its number, as the worker that did it has said.
        lost: MACs of epochs that workers had done before they died, and that were taken up from before.
    """

    job: Job
    number: int = 1
    deaths: int = 0
    reached: int = 0
    before: int = 0
    alone: bool = False
    result: TrialResult | None = None
    paused: bool = False
    watch: Watch | None = None
    spent: dict[int, int] = field(default_factory=dict)
    lost: int = 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"trial {self.job.job_id}" if self.job.kind == "trial" else f"artifact {self.job.job_id}"

    def note(self, epoch: int, spent_macs: int) -> None:
        """An epoch has ended, after which so much was spent; what was done of it and after it before is lost.

        Where an earlier search has left the state that it was taken up from, nobody knows what had been spent there:
        then this epoch is not counted twice.
        """
        last = max(self.spent, default=0)
        if epoch <= last:
            kept = 0 if epoch == 1 else self.spent.get(epoch - 1, spent_macs)
            self.lost += max(0, self.spent[last] - kept)
            self.spent = {done: macs for done, macs in self.spent.items() if done < epoch}
        self.spent[epoch] = spent_macs

    def booked(self, result: TrialResult) -> TrialResult:
        """A result with what was lost on the way to it."""
        last = self.spent[max(self.spent)] if self.spent else 0
        lost = self.lost + max(0, last - result.spent_macs)  # the last worker did not get so far
        return replace(result, spent_macs=result.spent_macs + lost, lost_macs=lost) if lost else result


class Attempts:
    """What comes next, and what becomes of what has ended. What the source raises is raised here.

    Args:
        source: Of the jobs.
        context: The study's, in this process.
        error: What is raised where no worker can begin.
    """

    def __init__(
        self, source: TrialSource, context: StudyContext, error: type[RuntimeError] = WorkerError
    ) -> None:
        self.source = source
        self.context = context
        self.limits = TimeLimits(context.resources.spec, before=context.resources.searched)
        self.stop_requested = False
        self._error = error
        self._again: deque[Attempt] = deque()
        self._begun: dict[str, Job] = {}
        self._nothing_until = 0.0

    @property
    def at_end(self) -> bool:
        """Whether the source will give nothing more; a running attempt may yet have to be made again."""
        return self.stop_requested or self.source.finished

    @property
    def running(self) -> list[Job]:
        """Jobs that were taken and have not ended."""
        return list(self._begun.values())

    def take(self) -> Attempt | None:
        """What is to be done next; None when there is nothing now."""
        if self._again:
            return self._again.popleft()
        if self.stop_requested or time.monotonic() < self._nothing_until:
            return None
        job = self.source.ask()
        if job is None:
            self._nothing_until = time.monotonic() + POLL_SECONDS
            return None
        self._begun[job.job_id] = job
        return Attempt(job)

    def begin(self, attempt: Attempt) -> None:
        """A worker that is ready has it: its time begins."""
        attempt.watch = self.limits.begin(attempt.job)

    def overdue(self, attempt: Attempt) -> str:
        """Why its worker is to be ended; "" while it has time."""
        return self.limits.overdue(attempt.watch) if attempt.watch is not None else ""

    def report(
        self, attempt: Attempt, epoch: int, metrics: Mapping[str, float], so_far: TrialResult | None
    ) -> Decision:
        """What the source says to an epoch.

        Args:
            attempt: Whose.
            epoch: From 1.
            metrics: Of the epoch.
            so_far: What is booked if the attempt should come to nothing from here on.
        """
        attempt.result = so_far
        if so_far is not None:
            attempt.note(epoch, so_far.spent_macs)
        attempt.reached = max(attempt.reached, epoch)
        if attempt.watch is not None:
            self.limits.epoch(attempt.watch)
        decision = self.source.report(attempt.job, epoch, metrics)
        attempt.paused = decision is Decision.PAUSE
        return decision

    def end(self, attempt: Attempt, result: TrialResult, *, shares_device: bool) -> None:
        """A worker has done what it could: book it, unless it may do better on a device of its own."""
        self._nothing_until = 0.0
        if result.blames_device and shares_device and not attempt.alone:
            what = f"lost its device ({result.reason})" if result.device_lost else "was out of device memory"
            _LOG.warning("%s %s; it runs again alone", attempt.name, what)
            again = replace(
                attempt,
                number=attempt.number + 1,
                before=attempt.reached,
                alone=True,
                result=None,
                watch=None,
            )
            self._again.append(again)
            return
        self._tell(attempt, result)

    def give_back(self, attempt: Attempt) -> None:
        """Nothing was done of it, for no fault of its own: hand it out again as it is."""
        self._nothing_until = 0.0
        self._again.append(replace(attempt, watch=None))

    def fail(self, attempt: Attempt, reason: str) -> None:
        """It has ended its worker, or its worker was ended for it, and would do so again: it is not tried again."""
        self._nothing_until = 0.0
        self._tell(attempt, failed(attempt.job, attempt.result, reason))

    def lose(self, attempt: Attempt, why: str, *, begun: bool) -> None:
        """A worker died for a reason that need not be the attempt's, or could not begin.

        Args:
            attempt: What it was given.
            why: One line.
            begun: Whether it was ready to work.

        Raises:
            RuntimeError: It could not begin, nor could those before it; of the type that was given.
        """
        self._nothing_until = 0.0
        # What gets further at each retry comes to its end, however often its machines are taken away.
        got_further = attempt.number > 1 and attempt.reached > attempt.before
        deaths = attempt.deaths + (not got_further)
        if deaths <= self.context.resources.spec.execution.retries:
            _LOG.warning("%s lost its worker (%s); it is taken up again", attempt.name, why)
            again = replace(
                attempt,
                number=attempt.number + 1,
                deaths=deaths,
                before=attempt.reached,
                watch=None,
            )
            self._again.append(again)
            return
        times = "once" if deaths == 1 else f"{deaths} times"
        if not begun:
            # No design is to blame, and a machine that fails at once would get one design after the other.
            raise self._error(f"a worker could not begin, {times}; the last time: {why}")
        reason = f"its worker died {times}, the last time: {why}"
        self._tell(attempt, failed(attempt.job, attempt.result, reason, why))

    def _tell(self, attempt: Attempt, result: TrialResult) -> None:
        result = attempt.booked(result)
        self._begun.pop(attempt.job.job_id, None)
        self.source.tell(attempt.job, result)
        forget(attempt.job, self.context, paused=attempt.paused and result.status == "stopped")


class Stoppable(Protocol):
    """What a Ctrl-C asks to come to its end."""

    stop_requested: bool

    @property
    def running(self) -> Sequence[Job]:
        """What that is now."""


def called(jobs: Sequence[Job]) -> str:
    """Jobs for people, such as ``the teacher and the running trials``."""
    made = [f"the {job.label or job.kind}" for job in jobs if job.kind == "artifact"]
    trials = len(jobs) - len(made)
    if trials:
        made.append("the running trial" if trials == 1 else "the running trials")
    # None is known while the next trial is proposed, which is then trained.
    return " and ".join(dict.fromkeys(made)) or "the running trial"


@contextmanager
def interrupts(run: Stoppable) -> Iterator[None]:
    """Inside, Ctrl-C once requests a stop; twice it raises ``KeyboardInterrupt``. Only the main thread hears it.

    Args:
        run: Who finishes what is running and takes up nothing new.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        if run.stop_requested:
            raise KeyboardInterrupt
        run.stop_requested = True
        _LOG.warning(
            "finishing %s; Ctrl-C again stops now, and what is in no checkpoint is trained again",
            called(run.running),
        )

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        heed()  # one that was heard before has found nothing running
        yield
    finally:
        signal.signal(signal.SIGINT, before)
