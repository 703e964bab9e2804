"""Numbers as people read them. None and NaN are shown as a dash."""

import math
from typing import Any

DASH = "–"
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")


def finite(value: Any) -> float | None:
    """`value` as a float, or None when it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def percent(value: Any, digits: int = 2) -> str:
    """A fraction in [0, 1] as a percentage with `digits` decimals: ``0.9722`` is ``97.22%``."""
    number = finite(value)
    return DASH if number is None else f"{100 * number:.{digits}f}%"


def percent_with_sd(mean: Any, sd: Any) -> str:
    """A mean and its standard deviation, both fractions, as ``97.22 ± 0.31%``."""
    if finite(sd) is None or finite(mean) is None:
        return percent(mean)
    return f"{100 * mean:.2f} ± {100 * sd:.2f}%"


def count(value: Any) -> str:
    """A count with three significant digits and a decimal prefix: ``12345`` is ``12.3 k``."""
    number = finite(value)
    if number is None:
        return DASH
    if abs(number) < 1000:
        return f"{number:.0f}" if number == int(number) else f"{number:.3g}"
    power = min(int(math.log10(abs(number)) // 3), len(_PREFIXES) - 1)
    scaled = number / 1000**power
    if abs(scaled) >= 999.5 and power < len(_PREFIXES) - 1:
        power, scaled = power + 1, scaled / 1000
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:.{digits}f} {_PREFIXES[power]}"


def flops(macs: Any) -> str:
    """FLOPs, two for each multiply-accumulate, of a network of `macs`."""
    number = finite(macs)
    return DASH if number is None else count(2 * number)


def macs(value: Any) -> str:
    """Multiply-accumulates with their unit: ``12345`` is ``12.3 kMACs``."""
    return DASH if finite(value) is None else count(value) + ("MACs" if abs(value) >= 999.5 else " MACs")


def short(value: Any) -> str:
    """A count without trailing zeros, for the ticks of an axis: ``10000`` is ``10 k``."""
    number, _, prefix = count(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {prefix}".rstrip()


def size(value: Any) -> str:
    """Bytes with a decimal prefix: ``12345`` is ``12.3 kB``."""
    number = finite(value)
    return DASH if number is None else count(number) + ("B" if abs(number) >= 999.5 else " B")


def duration(value: Any) -> str:
    """Seconds as ``1.2 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    number = finite(value)
    if number is None:
        return DASH
    if number < 59.95:
        return f"{number:.1f} s"
    minutes, seconds = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
