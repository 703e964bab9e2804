"""Which parameters of a search mattered: for each objective, and for accuracy among designs of a similar cost.

Of a trial only those parameters count that its design had a use for (:mod:`naskd.study.unused`). Trials of earlier
versions do not say which these were; nothing is told of them.

How few trials are too few was measured (``benchmarks/importance_halves.py``): random designs of the recorded table
``cifar10`` were split into halves, and the shares that each half gives were compared. Those of 6 trials correlate by
0.42, of 12 by 0.74, of 25 by 0.76 and of 50 by 0.93. The same parameter is first in 2, 2, 3 and 4 of six draws. Where
luck alone decides, halves correlate by 0.20 at most, and the largest share is still 27 to 38 %. Below 25 trials
nothing is told. Above, :func:`importance_floor` says what luck gives to a parameter that does not matter.
"""

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from naskd.spec.objectives import ACCURACY, Objective, cost_of
from naskd.spec.pareto import objective_space
from naskd.study.residuals import IMPORTANCE_NEEDS, accuracy_residuals
from naskd.study.used import DESIGN, UNUSED, used

IMPORTANCE_TRIALS = 400
"""Complete trials that importances are computed from, at most."""
FEWEST_TREES, MOST_TREES = 16, 64
"""Of the forests that explain an objective: many for few trials."""

COPIES = 20
"""Shuffled copies of parameters, at least, of which the one that explains most says what luck explains: of as many that
do not matter one has more."""

BANDS = 3
"""Of cost. Each needs as many trials as all the space does."""


def trials_used(study: optuna.Study) -> int:
    """Of how many complete trials importances are computed."""
    return min(len(_telling(study)), IMPORTANCE_TRIALS)


def _telling(study: optuna.Study) -> list[FrozenTrial]:
    """Complete trials that say which of their parameters had a use."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in complete if UNUSED in trial.user_attrs]


def importance(
    study: optuna.Study, axes: Sequence[Objective], *, most: int = 12, needs: int = IMPORTANCE_NEEDS
) -> dict[str, dict[str, float]]:
    """Which parameters mattered for each objective: the share of its variance that each explains.

    fANOVA (Hutter, Hoos, Leyton-Brown, ICML 2014) over complete trials, as Optuna computes it; each
    objective on its scale.

    A parameter that some designs have no use for is weighed among the others alone, and counts as much as the variance
    among these is of all. It is left out where these are too few, or all have one value. So is, of an objective that is
    known before training, a parameter that never changes it.

    Its time grows with trials times trees. Of many trials :data:`IMPORTANCE_TRIALS` stand for all, drawn at random and
    the same ones each time, with fewer trees.

    Args:
        study: Opened for reading.
        axes: Its objectives.
        most: Parameters of an objective.
        needs: Complete trials, and those that use a parameter: with fewer the numbers would be noise.

    Returns:
        By objective, shares by parameter, the largest first; empty with too few trials.
    """
    complete = _stands_for(_telling(study))
    if len(complete) < needs:
        return {}
    found: dict[str, dict[str, float]] = {}
    for position, axis in enumerate(axes):
        values = objective_space([[trial.values[position]] for trial in complete], [axis])[:, 0]
        weighed = _weighed(complete, axis.name if axis.known == "before" else "")
        if shares := _shares(weighed, values, most, needs):
            found[axis.name] = shares
    return found


def importance_floor(
    study: optuna.Study, axes: Sequence[Objective], *, needs: int = IMPORTANCE_NEEDS
) -> dict[str, float]:
    """The share that luck gives to a parameter that does not matter, in 19 of 20 cases: what has no more means nothing.

    Each parameter gets a copy with its values shuffled among the trials, which explains nothing but by luck (Boruta:
    Kursa & Rudnicki, "Feature selection with the Boruta package", Journal of Statistical Software 36, 2010).

    Args:
        study: Opened for reading.
        axes: Its objectives. Those that are known before training are no matter of luck, and have no floor.
        needs: See :func:`importance`.

    Returns:
        By objective, the share of the luckiest copy, on the scale of :func:`importance`, at most 1; empty with too few
        trials.
    """
    complete = _stands_for(_telling(study))
    if len(complete) < needs:
        return {}
    weighed, found = _weighed(complete), {}
    for position, axis in enumerate(axes):
        values = objective_space([[trial.values[position]] for trial in complete], [axis])[:, 0]
        if axis.known != "before" and (floor := _floor(weighed, values, needs)) is not None:
            found[axis.name] = floor
    return found


def _stands_for(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Of many trials some, drawn at random and the same ones each time."""
    return random.Random(0).sample(trials, IMPORTANCE_TRIALS) if len(trials) > IMPORTANCE_TRIALS else trials


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
        fraction), ``shares`` by parameter and their ``floor`` (see :func:`importance_floor`; None without shares).
        Empty with fewer than :data:`IMPORTANCE_NEEDS` complete trials a band.
    """
    cost, names = cost_of(axes), [axis.name for axis in axes]
    at, accuracy = names.index(cost.name), names.index(ACCURACY)
    complete = sorted(_telling(study), key=lambda trial: (trial.values[at], trial.number))
    if len(complete) > IMPORTANCE_TRIALS:
        kept = sorted(random.Random(0).sample(range(len(complete)), IMPORTANCE_TRIALS))
        complete = [complete[position] for position in kept]
    if len(complete) < BANDS * IMPORTANCE_NEEDS:
        return []
    costs = [trial.values[at] for trial in complete]
    residuals = accuracy_residuals(
        costs, [trial.values[accuracy] for trial in complete], logarithmic=cost.scale == "log"
    )
    assert residuals is not None
    weighed = _weighed(complete)
    found = []
    for band in range(BANDS):
        chosen = slice(len(complete) * band // BANDS, len(complete) * (band + 1) // BANDS)
        low, high = costs[chosen][0], costs[chosen][-1]
        found.append(
            {
                "low": low,
                "high": high,
                "trials": len(weighed[chosen]),
                "spread": float(residuals[chosen].std()),
                "shares": _shares(weighed[chosen], residuals[chosen], most, IMPORTANCE_NEEDS),
                "floor": _floor(weighed[chosen], residuals[chosen], IMPORTANCE_NEEDS),
            }
        )
    return found


def _weighed(trials: Sequence[FrozenTrial], objective: str = "") -> list[FrozenTrial]:
    """The trials with the parameters that may have mattered.

    Args:
        trials: That say which of their parameters had a use.
        objective: One that is known before training: without the parameters that changed it in none of the trials.
    """
    idle = [
        {*(unused := trial.user_attrs[UNUSED])[DESIGN], *unused.get(objective, ())} if objective else set()
        for trial in trials
    ]
    known = {name for trial, rest in zip(trials, idle, strict=True) for name in set(trial.params) - rest}
    found = []
    for trial in trials:
        params = {n: v for n, v in used(trial.params, trial.user_attrs[UNUSED]).items() if n in known}
        ranges = {name: trial.distributions[name] for name in params}
        found.append(create_trial(value=0.0, params=params, distributions=ranges))
    return found


def _shares(trials: Sequence[FrozenTrial], values: np.ndarray, most: int, needs: int) -> dict[str, float]:
    """The largest shares of the variance of values, one a trial; none where nothing can be told."""
    found: dict[str, float] = {}
    for having, own, names, weight in _groups(trials, values, needs):
        shares = _explained(having, own)
        found |= {name: weight * shares[name] for name in names if name in shares}
    whole = sum(found.values())
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return {name: share / whole for name, share in ordered[:most]} if whole > 0 else {}


def _floor(trials: Sequence[FrozenTrial], values: np.ndarray, needs: int) -> float | None:
    """The largest share of a shuffled copy of a parameter, beside all parameters; None where nothing can be told."""
    luck, whole, largest = random.Random(0), 0.0, 0.0
    groups = list(_groups(trials, values, needs))
    rounds = -(-COPIES // max(1, sum(len(names) for _, _, names, _ in groups)))
    for having, own, names, weight in groups:
        for _ in range(rounds):
            orders = {name: luck.sample(range(len(having)), len(having)) for name in names}
            copied = [
                create_trial(
                    value=0.0,
                    params=trial.params
                    | {_copy(name): having[orders[name][n]].params[name] for name in names},
                    distributions=trial.distributions
                    | {_copy(name): having[orders[name][n]].distributions[name] for name in names},
                )
                for n, trial in enumerate(having)
            ]
            shares = _explained(copied, own, FEWEST_TREES)
            whole += weight * sum(shares.get(name, 0.0) for name in names) / rounds
            largest = max(largest, weight * max(shares.get(_copy(name), 0.0) for name in names))
    return min(1.0, largest / whole) if whole > 0 else None


def _copy(name: str) -> str:
    return f"{name}, shuffled"


def _groups(
    trials: Sequence[FrozenTrial], values: np.ndarray, needs: int
) -> Iterator[tuple[list[FrozenTrial], np.ndarray, list[str], float]]:
    """Parameters that the same trials have: these, their values, the names, and their part of the variance of all."""
    total = float(((values - values.mean()) ** 2).sum())
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.params):
        having = tuple(n for n, trial in enumerate(trials) if name in trial.params)
        if len(having) >= needs:
            groups.setdefault(having, []).append(name)
    for having, names in groups.items():
        own = values[list(having)]
        variance = float(((own - own.mean()) ** 2).sum())
        if variance > 0:
            yield [trials[n] for n in having], own, names, variance / total


def _explained(
    trials: Sequence[FrozenTrial], values: np.ndarray, n_trees: int | None = None
) -> dict[str, float]:
    """Of the parameters that all these trials have, and that differ, the share that each explains alone."""
    names = [
        name
        for name in trials[0].params
        if all(name in trial.params for trial in trials) and len({t.params[name] for t in trials}) > 1
    ]
    alone = optuna.create_study()
    for trial, value in zip(trials, values, strict=True):
        params: Mapping[str, Any] = {name: trial.params[name] for name in names}
        ranges = {name: trial.distributions[name] for name in names}
        alone.add_trial(create_trial(value=float(value), params=dict(params), distributions=ranges))
    n_trees = n_trees or max(FEWEST_TREES, min(MOST_TREES, MOST_TREES * 100 // len(trials)))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=n_trees, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return optuna.importance.get_param_importances(alone, evaluator=evaluator, normalize=False)
        except (ValueError, RuntimeError):
            return {}  # no parameter that every trial shares
