"""Designs as rows of numbers, for models: what equal designs share, and nothing that is switched off.

The settled design is flattened, not its parameters: a temperature without a loss that has one is no feature.
"""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from naskd.spec.design import FLOAT_BITS, TrialConfig

Described = Mapping[str, float | str]


def describe(config: TrialConfig, costs: Mapping[str, float]) -> dict[str, float | str]:
    """Numbers and words of a design by name; numbers are logarithms, that of 0 is minus infinity.

    Args:
        config: A settled design.
        costs: Of it, positive.
    """
    given = config.to_dict()
    found: dict[str, float | str] = {}
    distillation = given["distillation"]
    terms = distillation.pop("terms")
    if unlabelled := distillation.pop("unlabelled", 0):
        found["images for each labelled one"] = math.log(1 + unlabelled)  # 0 of designs without
    # Of integers alone, as what is saved: nothing is said of floating point, which is 0 where others have fewer bits.
    for stage in given["architecture"]["stages"]:
        if "bits" in stage:
            stage["bits"] = FLOAT_BITS / stage["bits"]
    costs = dict(costs)
    if (bit_ops := costs.pop("bit_ops", 0)) and bit_ops != (full := costs["macs"] * FLOAT_BITS**2):
        found["cost bits saved"] = math.log(full / bit_ops)
    for part, content in given.items():
        found.update(_flat(part, content))
    for term in terms:
        kind = term.pop("kind")
        found[f"term {kind}"] = 1.0
        found.update(_flat(f"term {kind}", term))
    found.update({f"cost {name}": math.log(value) for name, value in costs.items() if value > 0})
    return found


def _flat(name: str, content: Any) -> Iterator[tuple[str, float | str]]:
    match content:
        case bool() | str() | None:
            yield name, str(content)
        case int() | float():
            # Widths, rates and weights are meant as ratios.
            yield name, math.log(content) if content > 0 else -math.inf
        case Mapping():
            for key, value in content.items():
                yield from _flat(f"{name}.{key}", value)
        case Sequence() if content and all(_is_option(one) for one in content):
            # By name: their places differ between designs. Left out, one has its default, which is no number here.
            for option, value in content:
                yield f"{name}.{option} given", 1.0
                yield from _flat(f"{name}.{option}", value)
        case Sequence():
            yield f"{name} n", float(len(content))
            for number, value in enumerate(content):
                yield from _flat(f"{name}.{number}", value)


def _is_option(content: Any) -> bool:
    """Whether it is a pair of a name and its value, as options are written."""
    return not isinstance(content, str) and isinstance(content, Sequence) and len(content) == 2


Vocabulary = Mapping[str, set[float | str | None]]
"""Values by name, None among them where some designs have none."""


def vocabulary(shown: Sequence[Described]) -> Vocabulary:
    """What designs have, by name."""
    names = dict.fromkeys(name for one in shown for name in one)
    return {name: {one.get(name) for one in shown} for name in names}


def unlike(one: Described, known: Vocabulary) -> list[str]:
    """Names of what a design has, or lacks, so that no design of a vocabulary tells of it.

    A number may be any; a word must be there, and so must the absence of something.
    """
    wrong = [name for name in one if name not in known]
    for name, values in known.items():
        value = one.get(name)
        if value not in values and not (
            isinstance(value, float) and any(isinstance(v, float) for v in values)
        ):
            wrong.append(name)
    return wrong


class Features:
    """Turns described designs into rows; learns which columns there are from those it is shown first.

    Numbers are scaled to unit variance over these, words become one column a word, and what does not vary is left out.
    The logarithm of 0 becomes the next step below the least of the others: as far from it as that is from the second,
    and no less than a half is from a whole. So a share of 0 is beside one of 0.1, and not among larger ones.

    Args:
        shown: Designs of the space, many.
        merged: Columns that say the same of all of these are one. A kind of knowledge that has ten settings and is
            always set alike says once that it is there, and is no further from others than a kind that has one. Only
            where what is shown tells of the space: in a few designs columns agree by chance.
    """

    def __init__(self, shown: Sequence[Described], merged: bool = False) -> None:
        names = sorted({name for one in shown for name in one})
        self._columns: list[tuple[str, str | None]] = []
        for name in names:
            values = {one.get(name) for one in shown}
            words = sorted(value for value in values if isinstance(value, str))
            if len(values) > 1:
                self._columns += [(name, word) for word in words[: len(words) if len(values) > 2 else 1]]
            if any(isinstance(value, float) for value in values) and len(values) > 1:
                self._columns.append((name, None))
        self._floors = {name: _below({one[name] for one in shown if name in one}) for name in names}
        raw = self._raw(shown)
        self._centre, self._scale = raw.mean(0), raw.std(0)
        self._scale[self._scale < 1e-12] = 1.0
        if merged:
            scaled = (raw - self._centre) / self._scale
            kept = _distinct(scaled)
            self._columns = [self._columns[number] for number in kept]
            self._centre, self._scale = self._centre[kept], self._scale[kept]

    def rows(self, designs: Sequence[Described]) -> NDArray[np.float64]:
        """``(N, D)``."""
        return np.asarray((self._raw(designs) - self._centre) / self._scale, dtype=np.float64)

    def _raw(self, designs: Sequence[Described]) -> NDArray[np.float64]:
        def number(one: Described, name: str, word: str | None) -> float:
            value = one.get(name)
            if word is not None:
                return float(value == word)
            if value == -math.inf:
                return self._floors[name]
            return value if isinstance(value, float) else 0.0

        return np.array([[number(one, *column) for column in self._columns] for one in designs]).reshape(
            len(designs), len(self._columns)
        )


def _below(values: Set[float | str]) -> float:
    """Where the logarithm of 0 lies beside those of what else there is."""
    found = sorted(value for value in values if isinstance(value, float) and math.isfinite(value))
    if len(found) < 2:
        return found[0] - 1.0 if found else -1.0  # scaled, it is as far from it as any other
    least, second = found[:2]
    return least - max(second - least, math.log(2))


def _distinct(scaled: NDArray[np.float64]) -> list[int]:
    """Numbers of the columns that vary and are no other one, or its opposite; of those that agree the first."""
    same = np.abs(scaled.T @ scaled) / len(scaled) > 1 - 1e-9
    return [number for number in range(len(same)) if same[number, number] and not same[number, :number].any()]
