"""Asynchronous successive halving for several objectives, the named baseline.

Schmucker, Donini, Zafar, Salinas & Archambeau, "Multi-objective asynchronous successive halving", 2021, arXiv
2106.12639: at a rung trials are ranked by non-dominated sorting, and within a front by an epsilon-net, which takes next
whatever is farthest from all taken before.

With `promote` a trial that is not among the best when it reaches a rung is paused, and goes on when it is among them
later (Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020, algorithm 2). Without, it is
stopped, as in their section 3.3.1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from naskd.spec.objectives import ACCURACY, Objective
from naskd.spec.pareto import non_dominated
from naskd.study.stopping import Curve, LedgerView, TrialView, costs_of
from naskd.trials.jobs import Decision, own_from

Array = NDArray[np.float64]


class MoAshaRule:
    """See the module.

    Args:
        min_epochs: Epoch of the first rung, at least 1; each further rung has `reduction` times more.
        reduction: Of this many trials that reach a rung, one goes on; at least 2.
        promote: Whether trials are paused, and may go on.
    """

    def __init__(self, min_epochs: int = 1, reduction: int = 3, promote: bool = False) -> None:
        self._min_epochs = min_epochs
        self._reduction = reduction
        self._promote = promote

    def decide(self, trial: TrialView, curve: Curve, ledger: LedgerView) -> Decision:
        """See :class:`~naskd.study.stopping.StoppingRule`."""
        epoch, costs = len(curve), costs_of(ledger.objectives)
        if (
            not self._is_rung(epoch)
            or own_from(curve) == epoch
            or any(c.name not in trial.metrics for c in costs)
        ):
            return Decision.CONTINUE
        others = [other for other in _at(epoch, ledger, costs) if other.number != trial.number]
        if trial.number in self._going_on([trial, *others], epoch, costs):
            return Decision.CONTINUE
        return Decision.PAUSE if self._promote else Decision.STOP

    def promote(self, ledger: LedgerView) -> int | None:
        """See :class:`~naskd.study.stopping.Promoting`: from the highest rung with one that is among its best."""
        costs = costs_of(ledger.objectives)
        waiting = [trial for trial in ledger.finished if trial.paused]
        for epoch in sorted({len(trial.curve) for trial in waiting}, reverse=True):
            best = self._going_on(_at(epoch, ledger, costs), epoch, costs)
            here = [trial.number for trial in waiting if len(trial.curve) == epoch and trial.number in best]
            if here:
                return min(here, key=best.index)
        return None

    def _going_on(self, trials: Sequence[TrialView], epoch: int, costs: Sequence[Objective]) -> list[int]:
        """Numbers of the best that have reached a rung, best first."""
        points = np.array([_point(one, epoch, costs) for one in trials])
        return [trials[place].number for place in ranked(points)[: max(1, len(trials) // self._reduction)]]

    def _is_rung(self, epoch: int) -> bool:
        rung = self._min_epochs
        while rung < epoch:
            rung *= self._reduction
        return rung == epoch


def _at(epoch: int, ledger: LedgerView, costs: Sequence[Objective]) -> list[TrialView]:
    """First trainings of designs whose student has reached an epoch, those that took their own and have known costs."""
    return [
        trial
        for trial in (*ledger.finished, *ledger.running)
        if not trial.replicate
        and trial.trained_in is None
        and own_from(trial.curve) < epoch <= len(trial.curve)
        and all(cost.name in trial.metrics for cost in costs)
    ]


def _point(trial: TrialView, epoch: int, costs: Sequence[Objective]) -> list[float]:
    """Accuracy at the rung and costs, less is better; costs on the scale on which they are measured."""
    scaled = [
        cost.sign * (np.log10(trial.metrics[cost.name]) if cost.scale == "log" else trial.metrics[cost.name])
        for cost in costs
    ]
    return [-trial.curve[epoch - 1][ACCURACY], *map(float, scaled)]


def ranked(points: Array) -> list[int]:
    """Places of points ``(N, M)``, less is better, best first: fronts in turn, each in the order of its epsilon-net."""
    spans = np.ptp(points, axis=0)
    scaled = (points - points.min(0)) / np.where(spans > 0, spans, 1.0)
    left = np.arange(len(points))
    order: list[int] = []
    while len(left):
        front = left[non_dominated(points[left], [False] * points.shape[1])]
        order += _epsilon_net(scaled, front)
        left = np.setdiff1d(left, front)
    return order


def _epsilon_net(points: Array, places: NDArray[np.intp]) -> list[int]:
    """Greedily: first the best in the first objective, then always the one farthest from those taken."""
    rest = list(places)
    taken = [min(rest, key=lambda place: tuple(points[place]))]
    rest.remove(taken[0])
    distance = {place: float(np.linalg.norm(points[place] - points[taken[0]])) for place in rest}
    while rest:
        farthest = max(rest, key=lambda place: (distance[place], -place))
        taken.append(farthest)
        rest.remove(farthest)
        for place in rest:
            distance[place] = min(distance[place], float(np.linalg.norm(points[place] - points[farthest])))
    return [int(place) for place in taken]
