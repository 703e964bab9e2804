"""Expected hypervolume improvement where all objectives but one are known exactly: a sum, without sampling.

With accuracy uncertain and costs known, a design improves the front only where it costs no more: over the cells of the
front at no less cost, each with the best accuracy that is reached there already. In a cell the expected improvement has
the closed form of one objective (Jones, Schonlau & Welch, "Efficient global optimization of expensive black-box
functions", J. Global Optimization 13, 1998, equation 15), and the hypervolume is the sum of volume times improvement
(the general case: Emmerich, Giannakoglou & Naujoks, "Single- and multiobjective evolutionary optimization assisted by
Gaussian random field metamodels", IEEE TEVC 2006).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


def expected_improvement(mean: Array, spread: Array, level: Array) -> Array:
    """``E[max(Y - level, 0)]`` of normal ``Y``; the arrays broadcast."""
    gap = mean - level
    z = gap / spread
    improved = gap * ndtr(z) + spread * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(improved, dtype=np.float64)


def expected_volume(
    mean: Array, spread: Array, costs: Array, front: Array, accuracies: Array, reference: Array, worst: float
) -> Array:
    """Expected hypervolume improvement of candidates.

    Args:
        mean: Of their accuracies, ``(N,)``.
        spread: Standard deviations of these, ``(N,)``, positive.
        costs: Of theirs, ``(N, K)``, in the space of the hypervolume; less is better.
        front: Costs of the designs that are there, ``(F, K)``; dominated ones may be among them and take time.
        accuracies: Of those, ``(F,)``.
        reference: Costs of the reference point, ``(K,)``.
        worst: Its accuracy.

    Returns:
        ``(N,)``, at least 0.
    """
    n_costs = costs.shape[1]
    inside = (front < reference).all(axis=1)
    front, accuracies = front[inside], accuracies[inside]
    edges = [np.append(np.unique(front[:, k]), reference[k]) for k in range(n_costs)]
    lower = [np.concatenate([[-np.inf], edge[:-1]]) for edge in edges]
    level = _levels(front, accuracies, lower, worst)
    # Volume of each cell at no less cost than the candidate, one factor an axis: (N, cells of the axis).
    factors = [
        np.clip(edge[None] - np.maximum(low[None], costs[:, k, None]), 0.0, None)
        for k, (edge, low) in enumerate(zip(edges, lower, strict=True))
    ]
    volume = factors[0]
    for factor in factors[1:]:
        volume = volume[..., None] * factor.reshape(len(mean), *[1] * (volume.ndim - 1), -1)
    better = expected_improvement(mean[:, None], spread[:, None], level.reshape(1, -1))
    return np.asarray((volume.reshape(len(mean), -1) * better).sum(axis=1), dtype=np.float64)


def _levels(front: Array, accuracies: Array, lower: list[Array], worst: float) -> Array:
    """Best accuracy at no more than the lower corner of each cell."""
    shape = [len(low) for low in lower]
    level = np.full(shape, worst)
    places: list[NDArray[Any]] = [
        np.searchsorted(low, front[:, k], side="left") for k, low in enumerate(lower)
    ]
    if len(front):
        np.maximum.at(level, tuple(places), accuracies)
    for axis in range(len(shape)):
        level = np.maximum.accumulate(level, axis=axis)
    return level
