"""Stop what will hardly be on the front at its cost.

Accuracy-only halving stops the cheap end of a front, where students are less accurate and welcome. Here a training is
compared with finished ones that cost no more: it goes on while it may become better than all of them.

What a forecast says changes with every curve that ends. So a trial is paused rather than stopped, and goes on when the
study has learned that it may well be on the front.
"""

import operator
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from scipy.special import ndtr

from naskd.spec.objectives import ACCURACY, Objective
from naskd.study.sampling.extrapolation import Extrapolation
from naskd.study.stopping import Curve, LedgerView, TrialView, costs_of
from naskd.trials.jobs import Decision

WANTED_BACK = 0.25
"""A paused trial goes on when it is at least so probable to be on the front."""
HOPELESS = 0.02
"""A trial is stopped for good when that is less probable than this share of ``risk``: nothing of it is kept."""


class FrontRule:
    """Stops a trial when it is improbable that, fully trained, it would be on the front.

    After each epoch its final accuracy is forecast from the study's own curves
    (:class:`~naskd.study.sampling.extrapolation.Extrapolation`), and compared with the best complete trial that costs
    no more in any objective known before training. Without one, and before enough trials are complete, it goes on.

    Args:
        risk: It is stopped when the probability of being better is below this, in (0, 0.5].
        min_epochs: No trial is stopped before, at least 1.
        promote: Whether trials are paused, and may go on.
    """

    def __init__(self, risk: float = 0.05, min_epochs: int = 1, promote: bool = True) -> None:
        self._risk = risk
        self._min_epochs = min_epochs
        self._promote = promote
        self._curves = Extrapolation()
        self._complete: list[TrialView] = []
        self._costs = np.empty((0, 0))
        self._accuracies = np.empty(0)

    def decide(self, trial: TrialView, curve: Curve, ledger: LedgerView) -> Decision:
        """See :class:`~naskd.study.stopping.StoppingRule`."""
        if len(curve) < self._min_epochs:
            return Decision.CONTINUE
        costs = costs_of(ledger.objectives)
        if any(cost.name not in trial.metrics for cost in costs):
            return Decision.CONTINUE
        self._learn(ledger.finished, costs)
        better = self._probability(trial, curve, costs)
        if better is None or better >= self._risk:
            return Decision.CONTINUE
        if not self._promote or better < HOPELESS * self._risk:
            return Decision.STOP
        # Whoever had it go on has weighed what is left of it: it is not paused again after the next epoch.
        return Decision.CONTINUE if trial.continued else Decision.PAUSE

    def promote(self, ledger: LedgerView) -> int | None:
        """See :class:`~naskd.study.stopping.Promoting`: the one that is most probable to be on the front."""
        costs = costs_of(ledger.objectives)
        self._learn(ledger.finished, costs)
        best, chosen = WANTED_BACK, None
        for trial in ledger.finished:
            better = self._probability(trial, trial.curve, costs) if trial.paused else None
            if better is not None and better > best:
                best, chosen = better, trial.number
        return chosen

    def _probability(self, trial: TrialView, curve: Curve, costs: Sequence[Objective]) -> float | None:
        """That a trial will be on the front; None while too little is known."""
        forecast = self._curves.forecast(trial, curve)
        mine = np.array([cost.sign * trial.metrics[cost.name] for cost in costs])
        if forecast is None or not (is_rival := (self._costs <= mine).all(axis=1)).any():
            return None
        return float(ndtr((forecast.mean - self._accuracies[is_rival].max()) / forecast.spread))

    def _learn(self, finished: Sequence[TrialView], costs: Sequence[Objective]) -> None:
        complete = [trial for trial in finished if trial.status == "complete"]
        if len(complete) == len(self._complete) and all(map(operator.is_, complete, self._complete)):
            return
        self._complete = complete
        self._curves.learn(complete)
        designs = _designs(complete)
        rows = [[cost.sign * same[0].metrics[cost.name] for cost in costs] for same in designs]
        self._costs = np.array(rows, dtype=np.float64).reshape(len(designs), len(costs))
        self._accuracies = np.array([fmean(trial.metrics[ACCURACY] for trial in same) for same in designs])


def _designs(complete: Sequence[TrialView]) -> list[list[TrialView]]:
    """Trials by design; those that train a design once more beside the first that has."""
    designs: list[list[TrialView]] = []
    by_name: dict[str, list[TrialView]] = {}
    for trial in complete:
        if trial.replicate and trial.config.config_id in by_name:
            by_name[trial.config.config_id].append(trial)
        else:
            designs.append([trial])
            by_name[trial.config.config_id] = designs[-1]
    return designs
