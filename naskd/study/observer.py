"""Who follows a search: progress displays, loggers, a user's own. Observers see everything and decide nothing."""

import logging
from collections.abc import Callable, Iterable, Mapping

from naskd.spec.errors import USERS, one_line
from naskd.study.snapshot import Snapshot
from naskd.trials.jobs import Job, TrialResult

_LOG = logging.getLogger(__name__)


class StudyObserver:
    """Follows a search; override what you need.

    The study calls it in the thread that searches, under every executor, and waits for it: what takes long belongs
    in a thread of the observer's own (:mod:`naskd.loggers.thread`). What it raises is warned of once and ends nothing.

    A job is asked for, reports its epochs and is told. A training that lost its worker repeats epochs since its
    checkpoint, with the same values. A job that is not told when the search closes was interrupted.
    """

    @property
    def name(self) -> str:
        """For messages; the class's unless it is overridden."""
        return type(self).__name__

    def asked(self, job: Job) -> None:
        """An executor takes up a job."""

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job has done an epoch.

        Args:
            job: As it was asked for.
            epoch: From 1.
            metrics: The point of the learning curve: ``epoch``, ``val_accuracy``, losses, ...
        """

    def told(self, job: Job, result: TrialResult) -> None:
        """A job has ended. `result` is what the ledger holds, or a failure that says why it holds none."""

    def looked(self, snapshot: Snapshot) -> None:
        """Something has changed; this is where the study stands."""

    def closed(self) -> None:
        """The search of this session is over, whatever ended it. The last call."""


class SnapshotObserver(StudyObserver):
    """Hands each snapshot to a function.

    Args:
        function: Called whenever something has changed.
    """

    def __init__(self, function: Callable[[Snapshot], None]) -> None:
        self._function = function

    def looked(self, snapshot: Snapshot) -> None:
        """See :class:`StudyObserver`."""
        self._function(snapshot)


class Observers(StudyObserver):
    """Several observers as one that never raises.

    Args:
        observers: In the order in which they are called.
    """

    def __init__(self, observers: Iterable[StudyObserver]) -> None:
        self._observers = tuple(observers)
        self._warned: set[int] = set()

    def asked(self, job: Job) -> None:
        """See :class:`StudyObserver`."""
        self._each(lambda observer: observer.asked(job))

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """See :class:`StudyObserver`."""
        self._each(lambda observer: observer.epoch(job, epoch, metrics))

    def told(self, job: Job, result: TrialResult) -> None:
        """See :class:`StudyObserver`."""
        self._each(lambda observer: observer.told(job, result))

    def looked(self, snapshot: Snapshot) -> None:
        """See :class:`StudyObserver`."""
        self._each(lambda observer: observer.looked(snapshot))

    def closed(self) -> None:
        """See :class:`StudyObserver`."""
        self._each(lambda observer: observer.closed())

    def _each(self, call: Callable[[StudyObserver], None]) -> None:
        for position, observer in enumerate(self._observers):
            try:
                call(observer)
            except USERS as error:  # whatever it raises, the search is worth more than who looks on
                if position not in self._warned:
                    self._warned.add(position)
                    _LOG.warning(
                        "observer %s raised %s; the search goes on, and further errors of it are not told",
                        observer.name,
                        one_line(error),
                    )
