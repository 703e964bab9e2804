"""Numbers as people give them: as they are printed, with a decimal prefix, or as numbers."""

import math
import numbers
import re

PREFIXES = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
"""Powers of ten."""

_WRITTEN = re.compile(
    r"\s*([+-]?(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9][0-9_]*)\.?[0-9]*(?:[eE][+-]?[0-9]+)?|[+-]?\.[0-9]+)"
    r"\s*([kKMGTPE]?)(?:MACs|(i)?B|ms)?(%?)\s*"
)
"""A comma stands between thousands. Where it may be a decimal one, as in 1,5 and 1,500M, it is not guessed at."""


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


def read_number(given: object) -> float | None:
    """A finite number, or None where it is none.

    Args:
        given: A number, or text such as ``50000``, ``1e6``, ``100k``, ``12.3 MMACs``, ``12.3 kB``, ``16 GiB``,
            ``0.35 ms`` or ``97.5%``. The unit is passed over: it is that of whoever asks.
    """
    if isinstance(given, str):
        found = _WRITTEN.fullmatch(given)
        if found is None or (found[2] and found[4]) or (found[3] and not found[2]):
            return None
        if "," in found[1] and (found[2] or found[4]):
            return None
        # Of the text, so that 1.1M is 1100000 exactly.
        shift = (0 if found[3] else PREFIXES[found[2]]) - (2 if found[4] else 0)
        digits, _, power = found[1].replace("_", "").replace(",", "").lower().partition("e")
        if len(power) > 4:
            return None
        number = float(f"{digits}e{int(power or 0) + shift}")
        number *= 1024 ** (PREFIXES[found[2]] // 3) if found[3] else 1
    elif isinstance(given, numbers.Real) and not isinstance(given, bool):
        try:
            number = float(given)
        except OverflowError:
            return None
    else:
        return None
    return number if math.isfinite(number) else None
