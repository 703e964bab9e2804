"""A setting of a registered method beyond those that all methods of its kind have, and how such settings are held."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from naskd.spec.registry import Registry, nearest

OptionValue = bool | int | float | str
Options = tuple[tuple[str, OptionValue], ...]
"""Settings as (name, value) pairs, sorted by name."""

_WORDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
}


@dataclass(frozen=True)
class Option:
    """A setting of a method.

    Args:
        default: An :data:`OptionValue`, used when nothing is said. None: the method then decides.
        meaning: One line.
        low, high: Closed range of a number; None where unbounded.
        choices: Of a string.
        above: A number must be larger than this; None where it need not.
        pattern: Regular expression that a whole string must match; "" where any will do.
        kind: Type of the values: bool, int, float or str. A whole number will do for a float. Default: that of
            `default`; it must be given where `default` is None.
        required: It must be given; `default` is then None.
        free: No value of it changes what a training costs: a temperature, a weight. The sampler `ehvi` then asks once
            for all of them, and not for each, how much training a scheme takes.
        path: A string that is a path, relative to the study file.
        leaves: Of a scheme: it says which of the networks that it has trained leaves, and no value of it changes the
            training. So designs that differ in it alone are trained together; see
            :attr:`~naskd.schemes.scheme.Scheme.siblings`.
    """

    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    above: float | None = None
    pattern: str = ""
    kind: type[bool] | type[int] | type[float] | type[str] | None = None
    required: bool = False
    free: bool = False
    path: bool = False
    leaves: bool = False

    def __post_init__(self) -> None:
        if self.default is None and self.kind is None:
            raise TypeError("an option without a default must state its kind: bool, int, float or str")
        if self.default is not None and (self.required or self.kind not in (None, type(self.default))):
            raise TypeError("an option's default must be of its kind, and None where it is required")

    @property
    def type(self) -> type[Any]:
        """Of its values."""
        return type(self.default) if self.kind is None else self.kind

    @property
    def allowed(self) -> str:
        """Which values it takes, in the words of a study file, such as ``a whole number at least 1``."""
        if self.choices:
            return either(json.dumps(choice) for choice in self.choices)
        form = f" of the form {self.pattern}" if self.pattern else ""
        return _WORDS[self.type] + (form or in_range(low=self.low, above=self.above, high=self.high))

    def fits(self, value: object) -> bool:
        """Whether `value` is allowed."""
        if type(value) is not self.type and not (self.type is float and type(value) is int):
            return False
        if isinstance(value, str):
            chosen = not self.choices or value in self.choices
            return chosen and (not self.pattern or re.fullmatch(self.pattern, value) is not None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        above = -math.inf if self.above is None else self.above
        return -math.inf < value < math.inf and low <= value <= high and above < value

    def problem(self, value: object) -> str:
        """What is wrong with `value`: what it is and what is allowed; empty when nothing is."""
        if self.fits(value):
            return ""
        example = "" if self.default is None else f", such as {self.default!r}"
        if isinstance(value, str) and self.type is str:
            allowed = ", ".join(self.choices) + nearest(value, self.choices) if self.choices else self.allowed
            return f"is {value!r}; allowed: {allowed}" + ("" if self.choices else example)
        if type(value) is self.type or (self.type is float and type(value) is int):
            bounds = in_range(low=self.low, above=self.above, high=self.high)
            return f"is {value}; allowed: finite{' and' if bounds else ''}{bounds}{example}"
        return f"is {value!r}; allowed: {self.type.__name__}{example}"


class Configured:
    """What a study says of something registered: its name, and the options of its card.

    A study file holds the options beside the name, as keys of one table; the dataclass that mixes this in holds them in
    `options`. Those at their default are left out, so that studies that mean the same are equal. The name is looked up
    when an option is read: who registers it may have to be imported first.
    """

    CARDS: ClassVar[Registry[Any]]
    """Where the name is registered."""

    CHOOSER: ClassVar[str] = "name"
    """The field that holds the name."""

    options: Options

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", canonical_options(self._known(), self.options))

    @property
    def card(self) -> Any:
        """What is chosen.

        Raises:
            UnknownNameError: Nothing is registered under that name.
        """
        return self.CARDS[getattr(self, self.CHOOSER)]

    def option(self, name: str) -> Any:
        """The value of an option of the card, or its default.

        Raises:
            KeyError: The card has no such option.
        """
        return dict(self.options).get(name, self.card.options[name].default)

    def settings(self, of: str = "") -> dict[str, Any]:
        """All options of a card by name, given or default.

        Args:
            of: Name of the card; default: the one that is chosen. A method that stands in for another reads its own.
        """
        given, card = dict(self.options), self.CARDS[of or getattr(self, self.CHOOSER)]
        return {name: given.get(name, option.default) for name, option in card.options.items()}

    def _known(self) -> Mapping[str, Option]:
        name = getattr(self, self.CHOOSER)
        return self.CARDS[name].options if name in self.CARDS else {}


def option_problems(known: Mapping[str, Option], given: Options, method: str) -> list[str]:
    """What is wrong with the options of a method, such as ``knowledge 'rkd'``; empty when nothing is."""
    found = [problem for name, value in given if (problem := _problem(known, name, value, method))]
    missing = [name for name, option in known.items() if option.required and name not in dict(given)]
    return found + [f"{method} needs option {name!r}: {known[name].meaning}" for name in missing]


def unknown_options(known: Mapping[str, Option], given: Options, method: str) -> list[str]:
    """Those of :func:`option_problems` that are about names: of an option, or of one of its choices."""
    return [
        _problem(known, name, value, method)
        for name, value in given
        if name not in known
        or (isinstance(value, str) and known[name].choices and not known[name].fits(value))
    ]


def _problem(known: Mapping[str, Option], name: str, value: object, method: str) -> str:
    if name not in known:
        names = (", ".join(sorted(known)) or "none") + nearest(name, known)
        return f"{method} has no option {name!r}; known: {names}"
    problem = known[name].problem(value)
    return f"option {name!r} of {method} {problem}" if problem else ""


def canonical_options(known: Mapping[str, Option], given: Options) -> Options:
    """Sorted, each once, without those that are at their default, in the option's own type; what is wrong stays.

    Of a name that is given twice the last value counts, as everywhere else.
    """
    kept = []
    for name, value in dict(given).items():
        option = known.get(name)
        if option is None or option.problem(value):
            kept.append((name, value))
        elif value != option.default:
            kept.append((name, option.type(value) + 0.0 if option.type is float else value))
    return tuple(sorted(kept))


def in_range(
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> str:
    """Bounds of a number in words, with a space before them: `` in (0, 1]``, `` at least 2``; "" without bounds."""
    start = f"[{low:g}" if low is not None else f"({above:g}" if above is not None else ""
    end = f"{high:g}]" if high is not None else f"{below:g})" if below is not None else ""
    if start and end:
        return f" in {start}, {end}"
    words = {"at least": low, "above": above, "at most": high, "below": below}
    return "".join(f" {word} {bound:g}" for word, bound in words.items() if bound is not None)


def either(words: Iterable[str]) -> str:
    """``a, b or c``."""
    *first, last = words
    return " or ".join(filter(None, [", ".join(first), last]))
