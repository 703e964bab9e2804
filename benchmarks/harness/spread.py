"""Medians, means and ratios, each with how far the repetitions lie apart."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from harness.results import Row


def values(rows: Sequence[Row], key: str, **same: Any) -> list[float]:
    """`key` of the rows that have it and these values, by repetition."""
    chosen = [
        row for row in rows if key in row and all(row.get(name) == value for name, value in same.items())
    ]
    return [row[key] for row in sorted(chosen, key=lambda row: row.get("repetition", 0))]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Repetition by repetition."""
    return [a / b for a, b in zip(above, below, strict=True)]


def middle(found: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    if not found:
        return "-"
    return f"{statistics.median(found):,.{digits}f} ({min(found):,.{digits}f} to {max(found):,.{digits}f})"


def sd(found: Sequence[float]) -> float:
    """Standard deviation; NaN of one value."""
    return statistics.stdev(found) if len(found) > 1 else math.nan


def interval(found: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """T interval of the mean; infinite of one value."""
    from scipy.stats import t

    if len(found) < 2:
        return -math.inf, math.inf
    half = float(t.ppf((1 + level) / 2, len(found) - 1)) * sd(found) / math.sqrt(len(found))
    return statistics.fmean(found) - half, statistics.fmean(found) + half


def difference(above: Sequence[float], below: Sequence[float]) -> str:
    """Mean of paired differences with its 95 % interval."""
    pairs = [a - b for a, b in zip(above, below, strict=True)]
    low, high = interval(pairs)
    return f"{statistics.fmean(pairs):+.4f} [{low:+.4f}, {high:+.4f}]"


def verdict(met: bool) -> str:
    """Of a goal."""
    return "met" if met else "missed"


def header(*titles: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
