"""What new images would probably say of designs, by all that a search has measured: its own luck taken off.

The accuracy of a design on the validation split is what it has, and luck of its seed and of the images. Whoever chooses
the best of many chooses luck as well. A Gaussian process over the designs (Rasmussen & Williams, 2006, equations 2.25
and 2.26) tells the two apart, as far as designs that are alike agree: its posterior mean shrinks what stands out alone,
more where the validation split is small (Efron & Morris, "Stein's paradox in statistics", 1977).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from naskd.spec.design import TrialConfig
from naskd.spec.objectives import ACCURACY

FEWEST = 20
"""Trainings below which nothing is said: a few tell little of what designs have in common."""
MOST = 2000
"""Trainings that are learned from, at most: time grows with their cube."""


@dataclass(frozen=True)
class Seen:
    """A finished training.

    Args:
        design: Number of the first trial of its design.
        config: The design.
        costs: Of it, positive.
        accuracy: On the validation split, a fraction.
    """

    design: int
    config: TrialConfig
    costs: Mapping[str, float]
    accuracy: float


def expected_accuracies(seen: Sequence[Seen], n_val: int) -> dict[int, tuple[float, float]]:
    """Mean and standard deviation of what designs have, by their number: fractions.

    Args:
        seen: Of one study; a design may be there with several seeds.
        n_val: Validation images; 0 where that is not known.

    Returns:
        Empty below :data:`FEWEST` trainings, above :data:`MOST`, and where all accuracies or all designs are alike.
    """
    if not FEWEST <= len(seen) <= MOST or len({one.accuracy for one in seen}) == 1:
        return {}
    import numpy as np

    from naskd.study.sampling.features import Features, describe
    from naskd.study.sampling.surrogate import LEAST_NOISE, Surrogate, luck_of_images

    described = [describe(one.config, one.costs) for one in seen]
    x = Features(described, merged=True).rows(described)
    if not x.shape[1]:
        return {}
    y = np.array([one.accuracy for one in seen])
    noise = np.array([max(LEAST_NOISE, luck_of_images(one.accuracy, n_val)) for one in seen])
    names = [str(one.design) for one in seen]
    model = Surrogate()
    model.fit(names, x, y, noise)
    mean, spread = model.predict(names, x)
    mean = np.clip(mean, 0.0, 1.0)
    return {one.design: (float(m), float(s)) for one, m, s in zip(seen, mean, spread, strict=True)}


def expect(trials: Sequence[dict[str, Any]], costs: Sequence[str], n_val: int) -> None:
    """Note in each design of a record what is expected of it, under ``expected``: ``mean`` and ``sd``.

    Args:
        trials: Of the record, the complete ones.
        costs: Names of their costs that are known before a training.
        n_val: Validation images; 0 where that is not known.
    """
    seen = [
        Seen(
            trial["number"] if trial["replicate_of"] is None else trial["replicate_of"],
            TrialConfig.from_dict(trial["config"]),
            {name: trial[name] for name in costs if (trial[name] or 0) > 0},
            (trial["own"] or trial)[ACCURACY],
        )
        for trial in trials
    ]
    found = expected_accuracies(seen, n_val)
    for trial in trials:
        if trial["replicate_of"] is None and trial["number"] in found:
            mean, sd = found[trial["number"]]
            trial["expected"] = {"mean": mean, "sd": sd}
