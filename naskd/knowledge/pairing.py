"""Which stage of the teacher teaches which stage of the student, for any two networks."""

import math

import torch
from torch import Tensor

from naskd.nn.taps import TapShape, TapShapes
from naskd.spec.design import Pairs
from naskd.spec.errors import InputError


def pair_stages(student: TapShapes, teacher: TapShapes, pairs: Pairs) -> tuple[tuple[int, int], ...]:
    """Pairs (student stage, teacher stage), shallow to deep.

    Every student stage gets the teacher stage with the same grid, the nearest in relative depth where several
    have it. Where none has it, the distance is the sum of ``|log2|`` of the ratio of the grids' sides (the
    root of their areas) and the difference of relative depths. Pairs never cross: a deeper student stage
    never gets a shallower teacher stage. Among all such assignments the one with the most equal grids is
    taken, then the one with the smallest summed distance, then the deeper teacher stages.

    Args:
        student: Shapes of its taps.
        teacher: Shapes of its taps.
        pairs: ``all`` of them, the ``first``, the ``last``, or the ``middle`` one (of an even number, the
            earlier of the two in the middle); ``learned``: every student stage with every teacher stage.

    Raises:
        InputError: A network shows no stages.
    """
    for name, shapes in (("student", student), ("teacher", teacher)):
        if not shapes.stages:
            raise InputError(
                f"the {name} shows 0 stages, needed: 1 or more; use a loss on logits or pooled features"
            )
    if pairs == "learned":
        return tuple((s, t) for s in range(len(student.stages)) for t in range(len(teacher.stages)))
    matched = _assignment(student.stages, teacher.stages)
    chosen: dict[Pairs, slice] = {
        "all": slice(None),
        "first": slice(0, 1),
        "last": slice(len(matched) - 1, None),
        "middle": slice((len(matched) - 1) // 2, (len(matched) - 1) // 2 + 1),
    }
    return matched[chosen[pairs]]


def association_start(student: TapShapes, teacher: TapShapes) -> Tensor:
    """Scores at which learned pairs begin: minus the distance of :func:`pair_stages`, ``(S, T)`` stages."""
    apart = [[sum(_distance(own, other)) for other in teacher.stages] for own in student.stages]
    return -torch.tensor(apart)


def _distance(student: TapShape, teacher: TapShape) -> tuple[int, float]:
    """Unequal grids first, then how far apart."""
    sides = math.prod(student.grid) / math.prod(teacher.grid)
    apart = abs(math.log2(sides)) / 2 + abs(student.position - teacher.position)
    return int(student.grid != teacher.grid), apart


def _assignment(student: tuple[TapShape, ...], teacher: tuple[TapShape, ...]) -> tuple[tuple[int, int], ...]:
    """The cheapest assignment whose teacher stages never go back; dynamic programming over student stages."""
    # costs[t], chains[t]: of the best assignment so far whose last student stage has teacher stage t
    costs = [(0, 0.0)] * len(teacher)
    chains: list[tuple[int, ...]] = [()] * len(teacher)
    for own in student:
        next_costs, next_chains = [], []
        for t, other in enumerate(teacher):
            # rounded, so that ties are ties whatever the order of the sums; on a tie the deeper stage
            best = min(range(t + 1), key=lambda previous: (costs[previous], -previous))
            unequal, apart = _distance(own, other)
            next_costs.append((costs[best][0] + unequal, round(costs[best][1] + apart, 9)))
            next_chains.append((*chains[best], t))
        costs, chains = next_costs, next_chains
    best = min(range(len(teacher)), key=lambda last: (costs[last], -last))
    return tuple(enumerate(chains[best]))
