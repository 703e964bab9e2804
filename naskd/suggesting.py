"""How parts of a search space get their values: from a trial, always with the same names and ranges."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from naskd.spec.design import TrialConfig
from naskd.spec.option import OptionValue

T = TypeVar("T")

Range = tuple[int, int]
"""Closed range of whole numbers."""
RealRange = tuple[float, float]
"""Closed range of real numbers; bounds of at most three significant digits."""
OptionRange = Range | RealRange | Sequence[OptionValue]
"""What an option may be: a pair of numbers is a closed range, of whole numbers, or of real ones above 0 on a
logarithmic scale; anything else lists what there is to choose from."""


class Trial(Protocol):
    """Where a search space gets its values from; an ``optuna.Trial`` is one."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high]."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""


SearchSpace = Callable[[Trial], TrialConfig]


def choose(trial: Trial, name: str, choices: Sequence[T]) -> T:
    """One of `choices`; a single one is a constant and no parameter."""
    chosen: T = choices[0] if len(choices) == 1 else trial.suggest_categorical(name, choices)
    return chosen


def suggest_int(trial: Trial, name: str, bounds: Range, *, log: bool = False) -> int:
    """A whole number; bounds that are equal are a constant."""
    low, high = bounds
    return low if low == high else trial.suggest_int(name, low, high, log=log)


def suggest_log(trial: Trial, name: str, bounds: RealRange) -> float:
    """A positive number on a logarithmic scale; bounds that are equal are a constant."""
    low, high = bounds
    # Three significant digits: more are noise, and a report has to show them.
    return low if low == high else float(f"{trial.suggest_float(name, low, high, log=True):.3g}")


def suggest_option(trial: Trial, name: str, may_be: OptionRange) -> OptionValue:
    """The value of an option; see :data:`OptionRange`."""
    if len(may_be) == 2 and not any(isinstance(bound, bool | str) for bound in may_be):
        low, high = may_be
        if isinstance(low, int) and isinstance(high, int):
            return suggest_int(trial, name, (low, high))
        return suggest_log(trial, name, (float(low), float(high)))
    return choose(trial, name, tuple(may_be))
