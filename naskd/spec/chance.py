"""What may have come by chance."""

import math
from collections.abc import Mapping
from typing import Any

POSSIBLE = 0.05
"""Probability from which something may have come by chance."""
NOTHING = 1e-20
"""A term below this share of the sum adds nothing to it, nor do those behind it: of a million images few count."""


def at_least(k: int, n: int, p: float) -> float:
    """Probability of `k` or more of `n` where each has probability `p`."""
    if k <= 0 or p >= 1:
        return 1.0
    if p <= 0 or k > n:
        return 0.0
    if k <= n * p:  # what is left is the smaller sum, and its terms fall from the first one on
        return 1.0 - at_least(n - k + 1, n, 1 - p)
    term = math.exp(
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
    )
    found, odds = 0.0, p / (1 - p)
    while term > NOTHING * found:
        found += term
        term *= (n - k) / (k + 1) * odds
        k += 1
    return min(1.0, found)


def guessed_at_most(n: int, classes: int, tries: int = 1) -> int:
    """How many images may be right by guessing, each class as often: more have a probability of 5 % at most.

    Args:
        n: Images, at least 1.
        classes: At least 2.
        tries: Networks that guess, of which the best counts; at least 1.
    """
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        if tries * at_least(middle, n, 1 / classes) > POSSIBLE:
            low = middle
        else:
            high = middle - 1
    return low


def may_guess(accuracy: float, images: Mapping[str, Any] | None, tries: int = 1) -> bool:
    """Whether so many validation images may be right by guessing; see :func:`guessed_at_most`.

    Args:
        accuracy: A fraction in [0, 1].
        images: Of a run's record: numbers of ``classes`` and of ``val`` images. None: it is not known.
        tries: Networks of which this is the best.
    """
    n, classes = (int((images or {}).get(key) or 0) for key in ("val", "classes"))
    if not n or classes < 2 or not math.isfinite(accuracy):
        return False
    return round(accuracy * n) <= guessed_at_most(n, classes, tries)
