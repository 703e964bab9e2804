"""A setting of a registered method beyond those that all methods of its kind have."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from naskd.spec.registry import nearest

OptionValue = bool | int | float | str
Options = tuple[tuple[str, OptionValue], ...]
"""Settings as (name, value) pairs, sorted by name."""


@dataclass(frozen=True)
class Option:
    """A setting of a method.

    Args:
        default: Used when a design does not name the option. Its type is the option's; a whole number will do
            for a float.
        meaning: One line.
        low, high: Closed range of a number; None where unbounded.
        choices: Of a string.
    """

    default: OptionValue
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def problem(self, value: object) -> str:
        """What is wrong with `value`: what it is and what is allowed; empty when nothing is."""
        wanted = type(self.default)
        fits = type(value) is wanted or (wanted is float and type(value) is int)
        if not fits:
            return f"is {value!r}; allowed: {wanted.__name__}, such as {self.default!r}"
        if isinstance(value, str) and self.choices and value not in self.choices:
            return f"is {value!r}; allowed: {', '.join(self.choices)}{nearest(value, self.choices)}"
        if not isinstance(value, int | float) or isinstance(value, bool):
            return ""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if math.isfinite(value) and low <= value <= high:
            return ""
        return f"is {value}; allowed: finite and in [{low:g}, {high:g}], such as {self.default!r}"


def option_problems(known: Mapping[str, Option], given: Options, method: str) -> list[str]:
    """What is wrong with the options of a method, such as ``knowledge 'rkd'``; empty when nothing is."""
    found = []
    for name, value in given:
        option = known.get(name)
        if option is None:
            names = (", ".join(sorted(known)) or "none") + nearest(name, known)
            found.append(f"{method} has no option {name!r}; known: {names}")
        elif problem := option.problem(value):
            found.append(f"option {name!r} of {method} {problem}")
    return found


def canonical_options(known: Mapping[str, Option], given: Options) -> Options:
    """Sorted, without those that are at their default, in the option's own type; what is wrong stays as it is."""
    kept = []
    for name, value in given:
        option = known.get(name)
        if option is None or option.problem(value):
            kept.append((name, value))
        elif value != option.default:
            kept.append((name, type(option.default)(value)))
    return tuple(sorted(kept))
