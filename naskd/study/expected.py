"""What new images would probably say of designs, by all that a search has measured: its own luck taken off.

The accuracy of a design on the validation split is what it has, and luck of its seed and of the images. Whoever chooses
the best of many chooses luck as well. A Gaussian process over the designs (Rasmussen & Williams, 2006, equations 2.25
and 2.26) tells the two apart, as far as designs that are alike agree: its posterior mean shrinks what stands out alone,
more where the validation split is small (Efron & Morris, "Stein's paradox in statistics", 1977).
"""

from collections.abc import Sequence
from typing import Any

from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.objectives import ACCURACY
from naskd.study.stopping import TrialView

FEWEST = 20
"""Finished trainings below which nothing is said: a few tell little of what designs have in common."""
MOST = 2000
"""Trainings that are learned from, at most: time grows with their cube."""


def expected_accuracies(
    trainings: Sequence[TrialView], costs: Sequence[str], n_val: int
) -> dict[int, tuple[float, float]]:
    """Mean and standard deviation of what designs have, by the numbers of their finished trainings: fractions.

    Args:
        trainings: Finished ones of one study.
        costs: Names of those of their metrics that say what a design costs; a training that lacks one is left out.
        n_val: Validation images; 0 where that is not known.

    Returns:
        Empty below :data:`FEWEST` trainings, above :data:`MOST`, and where all accuracies or all designs are alike.
    """
    seen = [one for one in trainings if all(one.metrics.get(name) is not None for name in costs)]
    if not FEWEST <= len(seen) <= MOST:
        return {}
    import numpy as np

    from naskd.study.sampling.features import Features, describe
    from naskd.study.sampling.observations import variance
    from naskd.study.sampling.surrogate import Surrogate

    described = [describe(one.config, {name: one.metrics[name] for name in costs}) for one in seen]
    x = Features(described, merged=True).rows(described)
    y = np.array([one.metrics[ACCURACY] for one in seen])
    if not x.shape[1] or not y.std():
        return {}
    names = [one.config.config_id for one in seen]
    model = Surrogate()
    model.fit(names, x, y, np.array([variance(accuracy, n_val) for accuracy in y]))
    mean, spread = model.predict(names, x)
    mean = np.clip(mean, 0.0, 1.0)
    return {one.number: (float(m), float(s)) for one, m, s in zip(seen, mean, spread, strict=True)}


def expect(trials: Sequence[dict[str, Any]], costs: Sequence[str], n_val: int) -> None:
    """Note in each design of a record what is expected of it, under ``expected``: ``mean`` and ``sd``.

    Args:
        trials: Of the record, the complete ones.
        costs: Names of their costs that are known before a training.
        n_val: Validation images; 0 where that is not known.
    """
    try:
        views = [
            TrialView(
                trial["number"],
                TrialConfig.from_dict(trial["config"]),
                0,
                "complete",
                metrics={name: (trial["own"] or trial)[name] for name in (ACCURACY, *costs)},
            )
            for trial in trials
        ]
    except InputError:  # designs of a later version
        return
    found = expected_accuracies(views, costs, n_val)
    for trial in trials:
        if trial["replicate_of"] is None and trial["number"] in found:
            mean, sd = found[trial["number"]]
            trial["expected"] = {"mean": mean, "sd": sd}
