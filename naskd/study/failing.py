"""A search of which nothing works: it ends after its first trials, before the same mistake has spent its budget."""

import re

from naskd.trials.jobs import TrialResult


class FirstTrials:
    """Whether the first trials of a session all fail alike. One that does not, and nothing more is watched.

    Later failures are left alone: a search that has trained something may be in a part of its space that fails.

    Args:
        most: So many of them end the search.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._failed = 0
        self._kind: str | None = None
        self.stop_reason = ""
        """Why nothing more is proposed; empty while something may be."""

    def ended(self, result: TrialResult) -> None:
        """A trial has ended with this result."""
        if self.stop_reason or not self._left:
            return
        # Numbers differ from design to design, as sizes and places in memory do.
        kind = re.sub(r"\b0x[0-9a-f]{6,}|\d[\d.,e+-]*", "#", result.reason)
        if result.status != "failed" or self._kind not in (None, kind):
            self._left = 0
            return
        self._kind, self._failed = kind, self._failed + 1
        if self._failed == self._left:
            n = self._failed
            trials = "the first trial failed" if n == 1 else f"the first {n} trials all failed alike"
            self.stop_reason = (
                f"{trials}: {result.reason}; mend that, and the same command goes on "
                "(budget.max_failed says after how many a search ends)"
            )
