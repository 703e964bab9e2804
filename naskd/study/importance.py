"""Which parameters of a search mattered: for each objective, and for accuracy among designs of a similar cost."""

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from naskd.spec.objectives import ACCURACY, Objective, cost_of
from naskd.spec.pareto import objective_space
from naskd.study.residuals import MIN_TRIALS, accuracy_residuals

IMPORTANCE_TRIALS = 400
"""Complete trials that importances are computed from, at most."""
FEWEST_TREES, MOST_TREES = 16, 64
"""Of the forests that explain an objective: many for few trials."""

BANDS = 3
BAND_TRIALS = 20
"""Complete trials of each band of cost, at least: forests of fewer explain noise."""


def trials_used(n_complete: int) -> int:
    """Of how many complete trials importances are computed."""
    return min(n_complete, IMPORTANCE_TRIALS)


def importance(
    study: optuna.Study, axes: Sequence[Objective], *, most: int = 12
) -> dict[str, dict[str, float]]:
    """Which parameters mattered for each objective: the share of its variance that each explains.

    fANOVA (Hutter, Hoos, Leyton-Brown, ICML 2014) over complete trials, as Optuna computes it; each
    objective on its scale. Empty with fewer than ten complete trials, where the numbers would be noise.

    Its time grows with trials times trees. Of many trials :data:`IMPORTANCE_TRIALS` stand for all, drawn at random and
    the same ones each time, with fewer trees.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < MIN_TRIALS:
        return {}
    if len(complete) > IMPORTANCE_TRIALS:
        complete = random.Random(0).sample(complete, IMPORTANCE_TRIALS)
        study = optuna.create_study(directions=study.directions)
        study.add_trials(complete)
    found: dict[str, dict[str, float]] = {}
    for position, axis in enumerate(axes):

        def target(trial: FrozenTrial, position: int = position, axis: Objective = axis) -> float:
            return float(objective_space([[trial.values[position]]], [axis])[0][0])

        if len({target(t) for t in complete}) > 1 and (shares := _shares(study, len(complete), target, most)):
            found[axis.name] = shares
    return found


def importance_by_cost(
    study: optuna.Study, axes: Sequence[Objective], *, most: int = 6
) -> list[dict[str, Any]]:
    """Which parameters mattered for accuracy at equal cost, among cheap, middling and costly designs.

    What is explained is the accuracy of a trial against what others of its cost lead one to expect
    (:func:`~naskd.study.residuals.accuracy_residuals`), in each third of the complete trials by cost.

    Args:
        study: Opened for reading.
        axes: Its objectives.
        most: Parameters of a band.

    Returns:
        Cheapest first: ``low`` and ``high`` cost, ``trials``, ``spread`` (standard deviation of what is explained, a
        fraction) and ``shares`` by parameter. Empty with fewer than 20 complete trials a band.
    """
    cost, names = cost_of(axes), [axis.name for axis in axes]
    at, accuracy = names.index(cost.name), names.index(ACCURACY)
    complete = sorted(
        study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)),
        key=lambda trial: (trial.values[at], trial.number),
    )
    if len(complete) > IMPORTANCE_TRIALS:
        kept = sorted(random.Random(0).sample(range(len(complete)), IMPORTANCE_TRIALS))
        complete = [complete[position] for position in kept]
    if len(complete) < BANDS * BAND_TRIALS:
        return []
    costs = [trial.values[at] for trial in complete]
    residuals = accuracy_residuals(
        costs, [trial.values[accuracy] for trial in complete], logarithmic=cost.scale == "log"
    )
    assert residuals is not None
    found = []
    for band in range(BANDS):
        chosen = slice(len(complete) * band // BANDS, len(complete) * (band + 1) // BANDS)
        alone = optuna.create_study()
        alone.add_trials(
            create_trial(value=float(value), params=trial.params, distributions=trial.distributions)
            for trial, value in zip(complete[chosen], residuals[chosen], strict=True)
        )
        spread = float(residuals[chosen].std())
        shares = _shares(alone, len(alone.trials), None, most) if spread > 0 else {}
        low, high = costs[chosen][0], costs[chosen][-1]
        found.append(
            {"low": low, "high": high, "trials": len(alone.trials), "spread": spread, "shares": shares}
        )
    return found


def _shares(
    study: optuna.Study, n_trials: int, target: Callable[[FrozenTrial], float] | None, most: int
) -> dict[str, float]:
    """The largest shares; none where the space has no such decomposition."""
    n_trees = max(FEWEST_TREES, min(MOST_TREES, MOST_TREES * 100 // n_trials))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=n_trees, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            values = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
        except (ValueError, RuntimeError):
            return {}  # no parameter that every trial shares
    return dict(list(values.items())[:most])
