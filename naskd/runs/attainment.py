"""What several runs of one arm attain: the region that any of them, half of them and all of them have reached.

The empirical attainment function counts, for each point of the objective space, the runs that have found something at
least as good (Grunert da Fonseca, Fonseca & Hall, "Inferential performance assessment of stochastic optimisers and the
attainment function", EMO 2001). Its levels are staircases: a front that is typical of a method, with how far runs lie
apart (López-Ibáñez, Paquete & Stützle, "Exploratory analysis of stochastic local search algorithms in biobjective
optimization", 2010).
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

Point = tuple[float, float]

LEVELS = ("any", "median", "all")
"""By at least one of the runs, by at least half of them, by all."""


def needed(level: str, runs: int) -> int:
    """How many of so many runs must have attained what is of a level."""
    return {"any": 1, "median": math.ceil(runs / 2), "all": runs}[level]


def levels_of(values: Sequence[float | None]) -> dict[str, float | None]:
    """What at least one, at least half, and all runs have reached, where more is better; None is nothing yet."""
    there = sorted((value for value in values if value is not None), reverse=True)
    counts = {level: needed(level, len(values)) for level in LEVELS}
    return {level: there[n - 1] if n <= len(there) else None for level, n in counts.items()}


def attainment(fronts: Sequence[Sequence[Point]], *, less: bool = True) -> dict[str, list[Any]]:
    """Accuracy that runs attain at no more than each cost.

    Args:
        fronts: Of each run: costs with their accuracies; dominated points may be among them.
        less: Whether less cost is better; otherwise costs are to be at least so much.

    Returns:
        ``cost``, best to worst, each at which something changes; and for each of :data:`LEVELS` the accuracies there,
        None where too few runs have anything.
    """
    sign = 1.0 if less else -1.0
    stairs = [_rising([(sign * cost, accuracy) for cost, accuracy in front]) for front in fronts]
    found: dict[str, list[Any]] = {"cost": [], **{level: [] for level in LEVELS}}
    before: dict[str, float | None] = dict.fromkeys(LEVELS)
    for cost in sorted({cost for stair in stairs for cost, _ in stair}):
        now = levels_of([_at(stair, cost) for stair in stairs])
        if now != before:
            found["cost"].append(sign * cost)
            for level in LEVELS:
                found[level].append(now[level])
            before = now
    return found


def band(curves: Sequence[Sequence[Point]]) -> dict[str, list[Any]]:
    """Levels of curves, such as hypervolume against compute, as far as every run has got.

    Args:
        curves: Of each run: places, rising, with the values that hold from there on.

    Returns:
        ``at``, and for each of :data:`LEVELS` the values there; None where too few runs have anything.
    """
    found: dict[str, list[Any]] = {"at": [], **{level: [] for level in LEVELS}}
    if not all(curves):
        return found
    end = min(curve[-1][0] for curve in curves)
    for place in sorted({x for curve in curves for x, _ in curve if x <= end}):
        now = levels_of([_at(curve, place) for curve in curves])
        found["at"].append(place)
        for level in LEVELS:
            found[level].append(now[level])
    return found


def _rising(points: Sequence[Point]) -> list[Point]:
    """The staircase of points: at each cost the best accuracy so far."""
    stair: list[Point] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not stair or accuracy > stair[-1][1]:
            stair.append((cost, accuracy))
    return stair


def _at(curve: Sequence[Point], place: float) -> float | None:
    index = bisect_right(curve, place, key=lambda point: point[0])
    return curve[index - 1][1] if index else None
