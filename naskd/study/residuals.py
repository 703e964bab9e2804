"""How much better or worse a design is than others of its cost."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MIN_TRIALS = 10
"""Complete trials, at least, of which a trend is told."""
IMPORTANCE_NEEDS = 25
"""Complete trials, at least, of which it is told which parameters mattered; see :mod:`naskd.study.importance`."""
_SHARE = 0.5


def accuracy_residuals(
    costs: Sequence[float], accuracies: Sequence[float], *, logarithmic: bool = True
) -> NDArray[np.float64] | None:
    """Accuracy minus what the other trials of a similar cost lead one to expect.

    The expectation is a local linear fit in (log) cost (tricube weights over the nearest half of the trials;
    Cleveland, "Robust locally weighted regression", JASA 74, 1979, without its robustness steps) that leaves
    the trial itself out, since a fit that has seen a point explains part of it away.

    Args:
        costs: One a trial; positive where `logarithmic`.
        accuracies: Fractions, one a trial.
        logarithmic: Whether costs are compared by their logarithms.

    Returns:
        Residuals, in fractions; None with fewer than `MIN_TRIALS` trials, which support no trend.
    """
    x, y = np.asarray(costs, dtype=np.float64), np.asarray(accuracies, dtype=np.float64)
    x = np.log10(x) if logarithmic else x
    n = len(x)
    if n < MIN_TRIALS:
        return None
    nearest = int(np.ceil(_SHARE * (n - 1)))
    expected = np.empty(n)
    for index in range(n):
        distance = np.abs(x - x[index])
        distance[index] = np.inf
        reach = np.partition(distance, nearest - 1)[nearest - 1] * 1.001 + 1e-9
        weight = np.clip(1 - np.minimum(distance / reach, 1) ** 3, 0, 1) ** 3
        total = weight.sum()
        dx = x - weight @ x / total
        spread = weight @ dx**2
        slope = weight @ (dx * y) / spread if spread > 1e-12 * total else 0.0
        expected[index] = weight @ y / total + slope * dx[index]
    return np.asarray(y - np.clip(expected, 0, 1), dtype=np.float64)
