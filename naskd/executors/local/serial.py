"""The reference executor: one job at a time, in this process."""

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from naskd.executors.attempts import POLL_SECONDS, WorkerError, interrupts
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialSource
from naskd.trials.outcome import checkpoint_key
from naskd.trials.steps import run_job


class SerialExecutor:
    """Runs trials and artifacts in the order in which the source gives them.

    Ctrl-C once finishes and records the running trial, then returns; twice raises ``KeyboardInterrupt`` at
    once, and the running trial is found again by the next resume.

    Args:
        context: The study's data and networks.
        folder: The run directory; nothing is written there.
    """

    def __init__(self, context: StudyContext, folder: Path) -> None:
        self.context = context
        self.stop_requested = False

    def run(self, source: TrialSource) -> None:
        """See :class:`~naskd.executors.Executor`.

        Raises:
            WorkerError: A job has made the device unusable for this process.
        """
        self.context.resources.compute.apply_threads()
        with interrupts(self, "the running trial"), _short_collections():
            while not self.stop_requested:
                if (job := source.ask()) is None:
                    if source.finished:
                        break
                    time.sleep(POLL_SECONDS)
                    continue

                def report(epoch: int, metrics: Mapping[str, float], job: Job = job) -> Decision:
                    return source.report(job, epoch, metrics)

                result = run_job(job, self.context, report)
                source.tell(job, result)
                if self.context.resources.checkpoints is not None:
                    self.context.resources.checkpoints.remove(checkpoint_key(job))
                if result.device_lost:
                    raise WorkerError(
                        f"{job.kind} {job.job_id} has ended with {result.reason!r}, and this process can use its GPU "
                        "no more; the next session goes on, and executor 'processes' would have gone on by itself"
                    )


@contextmanager
def _short_collections() -> Iterator[None]:
    """Have collections of garbage between trials not walk over all that was imported."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
