"""Numbers as people give them: as they are printed, with a decimal prefix, or as numbers."""

import math
import numbers
import re

PREFIXES = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
"""Powers of ten."""

_WRITTEN = re.compile(
    r"\s*([+-]?(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9][0-9_]*)\.?[0-9]*(?:[eE][+-]?[0-9]+)?|[+-]?\.[0-9]+)"
    r"\s*([kKMGTPE]?)(MACs|i?B|ms|%)?\s*"
)
"""A comma stands between thousands. Where it may be a decimal one, as in 1,5 and 1,500M, it is not guessed at."""

_OF_UNITS = {"MACs": "MACs", "B": "bytes", "iB": "bytes", "ms": "ms", "%": "fraction"}
"""What a number with a unit behind it is of, in the words of :class:`~naskd.spec.objectives.Objective`."""

_OF_NAMES = {
    "seconds": "seconds",
    "_ms": "ms",
    "macs": "MACs",
    "bytes": "bytes",
    "memory": "bytes",
    "params": "parameters",
    "bit_ops": "bit operations",
    "accuracy": "fraction",
    "fraction": "fraction",
}
"""What a key is counted in, by how its name ends."""


def unit_of(name: str) -> str:
    """What a key of a study file is counted in, such as ``MACs``; "" of a bare number, with which no unit is right."""
    return next((unit for ending, unit in _OF_NAMES.items() if name.endswith(ending)), "")


def real_number(given: object) -> float | None:
    """What code gives as a number, or None where it is none: no truth value, no text.

    Args:
        given: A real number, or an array or a tensor that holds one.
    """
    item = getattr(given, "item", None)
    if callable(item):
        try:
            given = item()
        except (ValueError, RuntimeError, TypeError):  # it holds several
            return None
    if not isinstance(given, numbers.Real) or isinstance(given, bool):
        return None
    return float(given)


def read_number(given: object, unit: str | None = None) -> float | None:
    """A finite number, or None where it is none.

    Args:
        given: A number, or text such as ``50000``, ``1e6``, ``100k``, ``12.3 MMACs``, ``12.3 kB``, ``16 GiB``,
            ``0.35 ms`` or ``97.5%``.
        unit: What is counted, in the words of an objective: a text with the unit of anything else is no number, as
            ``500ms`` where seconds are asked for. None: any unit is passed over.
    """
    if isinstance(given, str):
        found = _WRITTEN.fullmatch(given)
        if found is None:
            return None
        prefix, written = found[2], found[3] or ""
        if (prefix and written == "%") or (written == "iB" and not prefix):
            return None
        if "," in found[1] and (prefix or written == "%"):
            return None
        if written and unit not in (None, _OF_UNITS[written]):
            return None
        # Of the text, so that 1.1M is 1100000 exactly.
        shift = (0 if written == "iB" else PREFIXES[prefix]) - (2 if written == "%" else 0)
        digits, _, power = found[1].replace("_", "").replace(",", "").lower().partition("e")
        if len(power) > 4:
            return None
        number = float(f"{digits}e{int(power or 0) + shift}")
        number *= 1024 ** (PREFIXES[prefix] // 3) if written == "iB" else 1
    elif isinstance(given, numbers.Real) and not isinstance(given, bool):
        try:
            number = float(given)
        except OverflowError:
            return None
    else:
        return None
    return number if math.isfinite(number) else None
