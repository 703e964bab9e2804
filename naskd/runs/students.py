"""Which trained students of a search stay on the disk: those of trials on the front."""

from collections.abc import Mapping, Sequence

from naskd.spec.objectives import Objective
from naskd.spec.pareto import front_mask
from naskd.store.students import StudentStore
from naskd.study.observer import StudyObserver
from naskd.trials.jobs import Job, TrialResult
from naskd.trials.outcome import checkpoint_key

STUDENTS = "students"
"""Their folder in a run directory."""


class FrontKeeper(StudyObserver):
    """Removes the students of trials that are not on the front.

    Args:
        store: Of the students.
        objectives: Of the study, in its order.
    """

    def __init__(self, store: StudentStore, objectives: Sequence[Objective]) -> None:
        self._store = store
        self._objectives = objectives
        self._points: dict[str, tuple[float, ...]] = {}

    def begin(self, points: Mapping[str, tuple[float, ...]]) -> None:
        """Take in what earlier sessions have done, and remove what they left. Nobody writes yet.

        Args:
            points: Objective values of the complete trials by the key of their training.
        """
        self._points = dict(points)
        self._forget_dominated()
        self._store.keep_only(self._points)

    def told(self, job: Job, result: TrialResult) -> None:
        """See :class:`~naskd.study.observer.StudyObserver`."""
        if job.kind != "trial":
            return
        if result.status != "complete":
            if checkpoint_key(job) not in self._points:
                self._store.remove(checkpoint_key(job))
            return
        self._points[checkpoint_key(job)] = tuple(result.metrics[o.name] for o in self._objectives)
        self._forget_dominated()

    def _forget_dominated(self) -> None:
        """A trial that is off the front never comes back to it, so its point goes too."""
        if not self._points:
            return
        keys = list(self._points)
        front = front_mask([self._points[key] for key in keys], self._objectives)
        for key, on_front in zip(keys, front.tolist(), strict=True):
            if not on_front:
                del self._points[key]
                self._store.remove(key)
