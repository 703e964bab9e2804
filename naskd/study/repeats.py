"""Which designs are trained once more, with another seed: those of the front, whose accuracies luck has helped.

The best of many noisy values is too good: what a search finds by validation accuracy was partly lucky. A further
training of a design was not chosen by its result. So the mean over several is nearer to what the design is worth, and
designs that were lucky alone leave the front.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from naskd.spec.objectives import OBJECTIVES
from naskd.spec.pareto import front_mask
from naskd.spec.study import StudySpec
from naskd.study.drivers import Drivers
from naskd.study.ledger import Ledger, replicate_of

FROM = 0.5
"""Of the budget, from which on designs are trained again: most of an early front is gone by the end."""


@dataclass(frozen=True)
class Repeat:
    """A design to be trained once more.

    Args:
        parameters: That make the space return it.
        first: Number of the trial that has trained it first, whichever other designs that training gives.
        replicate: How many of its trainings come before.
    """

    parameters: Mapping[str, Any]
    first: int
    replicate: int


class Repeats:
    """Trainings of the front's designs that are still missing.

    Args:
        spec: The study; ``budget.front_seeds`` says how many trainings each shall have.
        ledger, drivers: Of the study.
        fraction: Of the budget that is spent.
    """

    def __init__(
        self, spec: StudySpec, ledger: Ledger, drivers: Drivers, fraction: Callable[[], float]
    ) -> None:
        self._wanted = spec.budget.front_seeds
        self._objectives = [OBJECTIVES[name] for name in spec.objectives]
        self._ledger = ledger
        self._drivers = drivers
        self._fraction = fraction
        self._front: tuple[tuple[int, int], list[int]] = (0, 0), []

    def next(self, *, early: bool = False) -> Repeat | None:
        """What to train again; None where nothing is missing.

        Designs with fewest trainings come first, then those that were found first.

        Args:
            early: Also before :data:`FROM` of the budget is used.
        """
        if self._wanted == 1 or not (early or self._fraction() >= FROM):
            return None
        missing = []
        for first in dict.fromkeys(map(self._ledger.trained_in, self._on_front())):
            begun = self._begun(first)
            missing += [(replicate, first) for replicate in range(1, self._wanted) if replicate not in begun]
        if not missing:
            return None
        replicate, first = min(missing)
        return Repeat(self._ledger.trials()[first].params, first, replicate)

    def _begun(self, first: int) -> set[int]:
        """Further trainings of a design that have ended, whatever came of them, or are under way."""
        running = {
            replicate
            for trial in self._ledger.open_trials.values()
            for root, replicate in [replicate_of(trial)]
            if root == first and self._drivers.is_wanted(trial)
        }
        return running | self._ledger.replicates.get(first, set())

    def _on_front(self) -> list[int]:
        """Designs of the front by their first trial; they stay as long as no further trial is complete."""
        known = self._ledger.complete, self._ledger.siblings
        if self._front[0] != known:
            points = self._ledger.points
            mask = front_mask(list(points.values()), self._objectives).tolist()
            self._front = (
                known,
                [first for first, there in zip(points, mask, strict=True) if there],
            )
        return self._front[1]
