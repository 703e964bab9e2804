"""How time passes: given to whoever asks for it, so that a study can run in made-up time.

It stands on the ground floor, since a study and an executor that replays a table look at the same clock.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells how much time has passed, and lets it pass. It tells no date: those of two hosts may differ."""

    def monotonic(self) -> float:
        """Seconds since any moment; never goes back."""

    def sleep(self, seconds: float) -> None:
        """Return when so many seconds have passed."""


class SystemClock:
    """The clock of this machine."""

    def monotonic(self) -> float:
        """See :class:`Clock`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See :class:`Clock`."""
        time.sleep(seconds)


class FakeClock:
    """A clock that goes on only when it is told to; it begins at 0."""

    def __init__(self) -> None:
        self._passed = 0.0

    def monotonic(self) -> float:
        """See :class:`Clock`."""
        return self._passed

    def sleep(self, seconds: float) -> None:
        """Go on by so many seconds, at once.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back: sleep({seconds!r})")
        self._passed += seconds

    def advance_to(self, moment: float) -> None:
        """Go on until :meth:`monotonic` says `moment`; nothing happens where that is over."""
        self._passed = max(self._passed, moment)
