"""What may have come by chance."""

import math
from collections.abc import Mapping
from typing import Any

POSSIBLE = 0.05
"""Probability from which something may have come by chance."""


def at_least(k: int, n: int, p: float) -> float:
    """Probability of `k` or more of `n` where each has probability `p`."""
    if k <= 0 or p >= 1:
        return 1.0
    if p <= 0:
        return 0.0
    terms = (
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(p)
        + (n - i) * math.log1p(-p)
        for i in range(k, n + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def may_guess(accuracy: float, images: Mapping[str, Any] | None, tries: int = 1) -> bool:
    """Whether so many validation images may be right by guessing, each class as often.

    Args:
        accuracy: A fraction in [0, 1].
        images: Of a run's record: numbers of ``classes`` and of ``val`` images. None: it is not known.
        tries: Networks of which this is the best.
    """
    n, classes = (int((images or {}).get(key) or 0) for key in ("val", "classes"))
    if not n or classes < 2 or not math.isfinite(accuracy):
        return False
    return tries * at_least(round(accuracy * n), n, 1 / classes) > POSSIBLE
