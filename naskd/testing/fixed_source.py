"""A source of jobs without a study, for tests of executors."""

from collections import deque
from collections.abc import Mapping

from naskd.trials.jobs import Decision, Job, TrialResult


class FixedSource:
    """Gives a fixed list of jobs, each when what it requires was told, and notes all that it hears.

    Args:
        jobs: In the order in which they are given.
        stop_at: Job id and epoch at which it says stop.
        decision: What it says there.
    """

    def __init__(
        self,
        jobs: list[Job],
        stop_at: tuple[str, int] | None = None,
        decision: Decision = Decision.STOP,
    ) -> None:
        self.waiting = deque(jobs)
        self.stop_at = stop_at
        self.decision = decision
        self.reports: dict[str, list[tuple[int, dict[str, float]]]] = {job.job_id: [] for job in jobs}
        self.results: dict[str, TrialResult] = {}
        self.asked: list[str] = []

    @property
    def finished(self) -> bool:
        """See :class:`~naskd.trials.jobs.TrialSource`."""
        return not self.waiting

    def ask(self) -> Job | None:
        """The next job, if what it requires was told."""
        if not self.waiting or not all(self._is_made(r) for r in self.waiting[0].requires):
            return None
        job = self.waiting.popleft()
        self.asked.append(job.job_id)
        return job

    def _is_made(self, artifact: str) -> bool:
        return artifact in self.results or artifact not in self.reports

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        """Note an epoch; nothing may be reported before it was asked for or after it was told."""
        assert job.job_id in self.asked
        assert job.job_id not in self.results, "a report after the result"
        self.reports[job.job_id].append((epoch, dict(metrics)))
        return self.decision if self.stop_at == (job.job_id, epoch) else Decision.CONTINUE

    def tell(self, job: Job, result: TrialResult) -> None:
        """Note a result; a second one of a job is an error."""
        assert job.job_id in self.asked
        assert job.job_id not in self.results, "told twice"
        self.results[job.job_id] = result
