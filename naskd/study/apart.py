"""Which part of a search's time its teachers and assistants take, which no later trial takes again."""

from collections.abc import Collection

from naskd.spec.clock import Clock
from naskd.trials.jobs import Job


class TimeApart:
    """Shares the time out among the jobs that run: of two at once each has half of it.

    Args:
        clock: By which time passes.
        seconds: Of earlier sessions.

    Attributes:
        seconds: For teachers and assistants, as of the last :meth:`until_now`.
    """

    def __init__(self, clock: Clock, seconds: float = 0.0) -> None:
        self._clock = clock
        self.seconds = seconds
        self._noted = clock.monotonic()

    def until_now(self, running: Collection[Job]) -> float:
        """Seconds for teachers and assistants so far; to be called before every change of what runs.

        Args:
            running: The jobs since the last call.
        """
        now = self._clock.monotonic()
        if running:
            shared = sum(job.kind == "artifact" for job in running) / len(running)
            self.seconds += (now - self._noted) * shared
        self._noted = now
        return self.seconds
