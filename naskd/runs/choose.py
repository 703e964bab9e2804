"""Which trial of a run to take."""

from collections.abc import Mapping, Sequence
from typing import Any

from naskd.spec.errors import InputError
from naskd.spec.numbers import read_number
from naskd.spec.objectives import ACCURACY, OBJECTIVES, Objective, cost_of
from naskd.spec.registry import nearest

Trial = Mapping[str, Any]


def needs_all(objectives: Sequence[Objective], limits: Mapping[str, Any]) -> bool:
    """Whether the best within limits may lie off the front: one is on something that is no objective of the study.

    Of two designs the one that is worse in all objectives may have fewer MACs.
    """
    known = {objective.name for objective in objectives}
    return any(name in OBJECTIVES and name not in known for name in limits)


def choose(
    front: Sequence[Trial], objectives: Sequence[Objective], limits: Mapping[str, float | str]
) -> Trial:
    """The one to take.

    Within limits on costs alone that is the most accurate; with a limit on accuracy the cheapest that reaches it.

    Args:
        front: Trials of a record's front; all designs where a limit :func:`needs_all`.
        objectives: Of the study, as the record describes them.
        limits: By name: what is minimised is at most this, what is maximised at least. As numbers, or as text such as
            ``100k``.

    Raises:
        InputError: The front is empty, a limit is of nothing that trials have, or none keeps the limits.
    """
    if not front:
        raise InputError("the run has no complete trial yet")
    bounds = [
        (objective := _objective(name, front, objectives), _number(objective, bound))
        for name, bound in limits.items()
    ]
    cost, accuracy = cost_of(objectives), next(o for o in objectives if o.name == ACCURACY)

    def excess(trial: Trial) -> float:
        return sum((_excess(trial, objective, bound, front) for objective, bound in bounds), start=0.0)

    found = [trial for trial in front if excess(trial) == 0]
    if not found:
        wanted = " and ".join(
            f"{o.name} {'>=' if o.maximise else '<='} {_exactly(bound)}" for o, bound in bounds
        )
        ends = " and ".join(f"{o.name} {_exactly(_best(front, o))}" for o, _ in bounds)
        near = min(front, key=excess)
        shown = ", ".join(
            f"{o.name} {_exactly(near[o.name])}"
            for o in dict.fromkeys([*objectives, *(o for o, _ in bounds)])
        )
        where, what = (
            ("", "trials reach") if needs_all(objectives, limits) else (" on the front", "the front reaches")
        )
        raise InputError(
            f"nothing{where} has {wanted}; {what} {ends}; nearest: trial {near['number']} with {shown}"
        )
    first = (cost, accuracy) if ACCURACY in limits else (accuracy, cost)
    order = dict.fromkeys([*first, *objectives])
    return min(found, key=lambda trial: tuple(o.sign * trial[o.name] for o in order))


def _objective(name: str, front: Sequence[Trial], objectives: Sequence[Objective]) -> Objective:
    known = {
        objective.name: objective for objective in OBJECTIVES if front[0].get(objective.name) is not None
    }
    known |= {objective.name: objective for objective in objectives}
    if name not in known:
        raise InputError(f"no limit on {name!r}; trials have {', '.join(known)}{nearest(str(name), known)}")
    return known[name]


def _number(objective: Objective, bound: Any) -> float:
    name, number = objective.name, read_number(bound, objective.unit)
    if number is None:
        of = f" ({objective.unit})" if objective.unit else ""
        raise InputError(
            f"the limit on {name} is {bound!r}; it must be a finite number{of}, such as 50000, 1e6 or '100k'"
        )
    if name == ACCURACY and not 0 <= number <= 1:
        hint = f"; did you mean {number / 100:g}?" if 1 < number <= 100 else ""
        raise InputError(f"the limit on {name} is {bound!r}; it must be a fraction from 0 to 1{hint}")
    return number


def _exactly(value: float) -> str:
    """A number that is the same when it is given as a limit."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _best(front: Sequence[Trial], objective: Objective) -> float:
    return objective.sign * min(objective.sign * float(trial[objective.name]) for trial in front)


def _excess(trial: Trial, objective: Objective, bound: float, front: Sequence[Trial]) -> float:
    """By how much a trial breaks a limit, as a share of what the front spans beyond it; 0 within."""
    over = objective.sign * (trial[objective.name] - bound)
    most = max(objective.sign * (other[objective.name] - bound) for other in front)
    return float(over / most) if over > 0 else 0.0
