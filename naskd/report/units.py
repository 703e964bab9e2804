"""Numbers as people read them. None and NaN are shown as a dash."""

import math
from typing import Any

DASH = "–"
FORMATS: dict[str, Any] = {
    "dash": DASH,
    "percent": 2,
    "prefixes": ["", "k", "M", "G", "T", "P", "E"],
    "decimals": [[9.995, 2], [99.95, 1]],
    "next": 999.5,
    "seconds": 59.95,
    "volume": [4, 0.001],
}
"""What all numbers are written by, here and in ``numbers.js``, into whose page it is put.

Decimals of percentages; prefixes of a thousand each; a scaled number that is less than the first of a pair has so many
decimals, else none; from ``next`` on a number has the next prefix; from ``seconds`` on there are minutes. Decimals of a
hypervolume, and below what it has three digits instead.
"""


def finite(value: Any) -> float | None:
    """`value` as a float, or None when it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def percent(value: Any, digits: int = FORMATS["percent"]) -> str:
    """A fraction in [0, 1] as a percentage with `digits` decimals: ``0.9722`` is ``97.22%``."""
    number = finite(value)
    return DASH if number is None else f"{100 * number:.{digits}f}%"


def percent_with_sd(mean: Any, sd: Any) -> str:
    """A mean and its standard deviation, both fractions, as ``97.22 ± 0.31%``."""
    if finite(sd) is None or finite(mean) is None:
        return percent(mean)
    digits = FORMATS["percent"]
    return f"{100 * mean:.{digits}f} ± {100 * sd:.{digits}f}%"


def points_with_error(difference: Any, error: Any) -> str:
    """A difference of accuracies, a fraction, in points with its standard error: ``+1.25 ± 0.40``."""
    number = finite(difference)
    if number is None:
        return DASH
    digits = FORMATS["percent"]
    said = "" if finite(error) is None else f" ± {100 * error:.{digits}f}"
    return f"{100 * number:+.{digits}f}{said}"


def count(value: Any) -> str:
    """A count with three significant digits and a decimal prefix: ``12345`` is ``12.3 k``."""
    number = finite(value)
    if number is None:
        return DASH
    whole = number == int(number)
    if abs(number) < (1000 if whole else FORMATS["next"]):
        return f"{number:.0f}" if whole else f"{number:.3g}"
    scaled, prefix = _scaled(number)
    digits = next((digits for below, digits in FORMATS["decimals"] if abs(scaled) < below), 0)
    return f"{scaled:.{digits}f} {prefix}"


def _scaled(number: float) -> tuple[float, str]:
    """A number of at least ``next`` over a power of a thousand, and the prefix of that."""
    prefixes = FORMATS["prefixes"]
    power = min(int(math.log10(abs(number)) // 3), len(prefixes) - 1)
    if abs(number / 1000**power) >= FORMATS["next"] and power < len(prefixes) - 1:
        power += 1
    return number / 1000**power, prefixes[power]


def flops(macs: Any) -> str:
    """FLOPs, two for each multiply-accumulate, of a network of `macs`."""
    number = finite(macs)
    return DASH if number is None else count(2 * number)


def macs(value: Any) -> str:
    """Multiply-accumulates with their unit: ``12345`` is ``12.3 kMACs``."""
    return (
        DASH
        if finite(value) is None
        else count(value) + ("MACs" if abs(value) >= FORMATS["next"] else " MACs")
    )


def count_tick(value: float) -> str:
    """Exactly where a tick stands, in as many digits as that needs: ``10000`` is ``10 k``, ``12350`` is ``12.35 k``."""
    if abs(value) < 1000:
        return _exact(value)
    scaled, prefix = _scaled(value)
    return f"{_exact(scaled)} {prefix}"


def percent_tick(value: float) -> str:
    """The same for a fraction: ``0.995`` is ``99.5%``."""
    return f"{_exact(100 * value)}%"


def _exact(value: float) -> str:
    """Without what sums of binary fractions leave behind."""
    return f"{float(f'{value:.9g}'):.9g}"


def size(value: Any) -> str:
    """Bytes with a decimal prefix: ``12345`` is ``12.3 kB``."""
    number = finite(value)
    return DASH if number is None else count(number) + ("B" if abs(number) >= FORMATS["next"] else " B")


def epochs_of(n: int) -> str:
    """``"1 epoch"``, ``"20 epochs"``."""
    return f"{n} epoch{'' if n == 1 else 's'}"


def duration(value: Any) -> str:
    """Seconds as ``1.2 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    number = finite(value)
    if number is None:
        return DASH
    if number < FORMATS["seconds"]:
        return f"{number:.1f} s"
    minutes, seconds = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def about(least: Any, most: Any = None) -> str:
    """Seconds that are estimated, no finer than they are known: ``40 s``, ``12 min``, ``12 to 25 min`` or ``2.5 h``.

    Args:
        least: Seconds.
        most: As much or more; None, or hardly more, says one number.
    """
    low, high = finite(least), finite(least if most is None else most)
    if low is None or high is None:
        return DASH
    if high < _APART * low:
        return _roughly((low * high) ** 0.5, _unit_of(high))
    first, last = (_roughly(seconds, _unit_of(seconds)) for seconds in (low, high))
    unit = last.split()[1]
    return f"{first.removesuffix(f' {unit}')} to {last}"


_APART = 1.3
"""Times that an estimate may be another before both are said."""


def _unit_of(seconds: float) -> tuple[float, str]:
    return (1.0, "s") if seconds < 90 else (60.0, "min") if seconds < 5400 else (3600.0, "h")


def _roughly(seconds: float, of: tuple[float, str]) -> str:
    scaled = seconds / of[0]
    return f"{scaled:.2g} {of[1]}" if scaled < 100 else f"{scaled:.0f} {of[1]}"


def measure(value: Any, unit: str) -> str:
    """A value of an objective in its unit: ``97.22%``, ``12.3 k`` of what is counted, ``12.3 kB``, ``4.25 ms``."""
    number = finite(value)
    if number is None:
        return DASH
    if unit == "fraction":
        return percent(number)
    if unit == "bytes":
        return size(number)
    if unit in ("MACs", "parameters", "bit operations"):
        return count(number)
    return (
        f"{number:,.0f} {unit}".rstrip()
        if abs(number) >= FORMATS["next"]
        else f"{number:.3g} {unit}".rstrip()
    )


def volume(value: Any) -> str:
    """A hypervolume: ``0.4213``, and ``5.1e-05`` where decimals would say little: with three objectives it is small."""
    number = finite(value)
    if number is None:
        return DASH
    decimals, least = FORMATS["volume"]
    return f"{number:.3g}" if 0 < number < least else f"{number:.{decimals}f}"


def axis_label(title: str, unit: str) -> str:
    """What an axis is titled: ``MACs (FLOPs = 2 × MACs)``, ``size in bytes``, ``latency in ms``."""
    if unit == "MACs":
        return f"{title} (FLOPs = 2 × MACs)"
    return title if unit in ("", "fraction", title) else f"{title} in {unit}"


def training_name(number: int | str, continues: int | str | None) -> str:
    """A trial by its number, and the paused one with which it goes on, where there is one."""
    return f"trial {number}" if continues is None else f"trial {number}, which goes on with trial {continues}"
