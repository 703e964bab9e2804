"""The reference executor: one job at a time, in this process."""

import gc
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from naskd.executors.attempts import POLL_SECONDS, WorkerError, interrupts
from naskd.executors.faults import FaultFile
from naskd.executors.limits import TimeLimits
from naskd.spec.errors import one_line
from naskd.spec.timeouts import OutOfTimeError, ended_when
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult, TrialSource
from naskd.trials.outcome import Progress, Steps, Work, checkpoint_key, failed, forget
from naskd.trials.steps import job_steps

FAULT_FOLDER = "faults"
"""In the run directory: notes of jobs that have ended a process."""


class SerialExecutor:
    """Runs trials and artifacts in the order in which the source gives them.

    Ctrl-C once finishes and records the running job, then returns; twice raises ``KeyboardInterrupt`` at
    once, and a running trial is found again by the next resume.

    A job that ends this process by a native fault, or is stuck in code that cannot be interrupted, ends the search; the
    next one finds a note of it in the run directory and books it as failed.

    Args:
        context: The study's data and networks.
        folder: The run directory.
        work: How a job is done.
    """

    def __init__(self, context: StudyContext, folder: Path, work: Work = job_steps) -> None:
        self.context = context
        self.folder = folder
        self.work = work
        self.limits = TimeLimits(context.resources.spec, before=context.resources.searched)
        self.stop_requested = False
        self.running: list[Job] = []
        """The job that is done now, if there is one."""
        self._paused = False

    def run(self, source: TrialSource) -> None:
        """See :class:`~naskd.executors.Executor`.

        Raises:
            WorkerError: A job has made the device unusable for this process.
        """
        self.context.resources.compute.apply_threads()
        with interrupts(self), _short_collections():
            while not self.stop_requested:
                if (job := source.ask()) is None:
                    if source.finished:
                        break
                    time.sleep(POLL_SECONDS)
                    continue
                self.running = [job]
                result = self._do(job, source)
                self.running = []
                source.tell(job, result)
                forget(job, self.context, paused=self._paused and result.status == "stopped")
                if result.device_lost:
                    raise WorkerError(
                        f"{job.kind} {job.job_id} has ended with {result.reason!r}, and this process can use its GPU "
                        "no more; the next session goes on, and executor 'processes' would have gone on by itself"
                    )

    def _do(self, job: Job, source: TrialSource) -> TrialResult:
        """A job to its end, whatever ends it."""
        file = FaultFile(self.folder / FAULT_FOLDER, checkpoint_key(job))
        if (earlier := file.take()) is not None:
            return failed(job, None, *earlier)
        so_far: TrialResult | None = None
        watch = self.limits.begin(job)
        steps, decision = self.work(job, self.context), None
        self._paused = False
        with file.written():
            try:
                while True:
                    with ended_when(
                        lambda: self.limits.overdue(watch),
                        stuck=lambda reason: file.leave(f"{job.kind} {job.job_id}", reason),
                    ):
                        said = _next(steps, decision)
                    if isinstance(said, TrialResult):
                        return said
                    so_far = said.result
                    self.limits.epoch(watch)
                    # Outside: what the study does is never cut in two.
                    decision = source.report(job, said.epoch, said.metrics)
                    self._paused = decision is Decision.PAUSE
            except OutOfTimeError as over:
                return failed(job, so_far, str(over) or self.limits.overdue(watch), traceback.format_exc())
            except KeyboardInterrupt as error:
                if self.stop_requested:
                    raise
                # No Ctrl-C was heard: a user's code has raised it.
                return failed(job, so_far, one_line(error), traceback.format_exc())
            finally:
                steps.close()


def _next(steps: Steps, decision: Decision | None) -> Progress | TrialResult:
    """What a job says next, or its result."""
    try:
        return next(steps) if decision is None else steps.send(decision)
    except StopIteration as end:
        result: TrialResult = end.value
        return result


@contextmanager
def _short_collections() -> Iterator[None]:
    """Have collections of garbage between trials not walk over all that was imported."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
