"""Which trained students of a search stay on the disk: those of trials on the front."""

from collections.abc import Mapping, Sequence

from naskd.spec.design import TrialConfig
from naskd.spec.objectives import Objective
from naskd.spec.pareto import front_mask
from naskd.store.students import StudentStore
from naskd.study.ledger import mean_values
from naskd.study.observer import StudyObserver
from naskd.trials.jobs import Job, TrialResult, training_key

STUDENTS = "students"
"""Their folder in a run directory."""


class FrontKeeper(StudyObserver):
    """Removes the students of designs that are not on the front.

    Args:
        store: Of the students.
        objectives: Of the study, in its order.
    """

    def __init__(self, store: StudentStore, objectives: Sequence[Objective]) -> None:
        self._store = store
        self._objectives = objectives
        self._values: dict[str, dict[str, tuple[float, ...]]] = {}
        self._kept: set[str] = set()

    def begin(self, values: Mapping[str, Mapping[str, tuple[float, ...]]]) -> None:
        """Take in what earlier sessions have done, and remove what they left. Nobody writes yet.

        Args:
            values: Objective values of the complete trials by their design and the key of their training.
        """
        self._values = {design: dict(trainings) for design, trainings in values.items()}
        self._kept = self._on_front()
        self._store.keep_only(self._kept)

    def told(self, job: Job, result: TrialResult) -> None:
        """See :class:`~naskd.study.observer.StudyObserver`."""
        if job.kind != "trial":
            return
        assert job.config is not None
        self._take_in(job.config, result)
        for sibling in result.siblings:
            self._take_in(sibling.config, sibling.result)
        wanted = self._on_front()
        for one in self._kept - wanted:
            self._store.remove(one)
        self._kept &= wanted

    def _take_in(self, config: TrialConfig, result: TrialResult) -> None:
        key = training_key(config.config_id, result.seed)
        trainings = self._values.setdefault(config.config_id, {})
        if result.status == "complete":
            trainings[key] = tuple(result.metrics[objective.name] for objective in self._objectives)
            self._kept.add(key)
        elif key not in trainings:
            self._store.remove(key)

    def _on_front(self) -> set[str]:
        """Trainings of the designs on the front.

        A design that was off it may come back, when one that was lucky is trained once more and turns out worse; its
        student is then made again by whoever wants it.
        """
        points = {
            design: mean_values(list(found.values())) for design, found in self._values.items() if found
        }
        if not points:
            return set()
        front = front_mask(list(points.values()), self._objectives).tolist()
        return {
            key for design, there in zip(points, front, strict=True) if there for key in self._values[design]
        }
