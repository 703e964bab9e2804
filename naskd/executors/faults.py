"""What a native fault leaves behind: the process dies, and only a file can say which job it was at.

A fault is the design's: it would come again, and end the next process. So a job that has one is not tried again.
"""

import faulthandler
import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from naskd.spec.timeouts import leave_process

FAULTS = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
"""Signals that a process gets for what it did itself."""

_SAID = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",
}
"""Names in the text of Python's ``faulthandler``."""

_LONGEST = 1e6
"""Seconds that a process is watched at once, at most: a timer takes no number that is far larger."""


def ended_by(signal_name: str) -> str:
    """For reasons."""
    return f"its process was ended by signal {signal_name}"


class FaultFile:
    """A file for one job; it is there while the job runs, and afterwards if its process has died of it.

    Args:
        folder: Of all jobs; it is made.
        key: Of the job, whatever its number.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / f"{key.replace('/', '.')}.log"
        self._file: IO[str] | None = None

    def take(self) -> tuple[str, str] | None:
        """Why the job has ended its process before, in a line, and where in the code; the file is then gone."""
        try:
            text = self._path.read_text(errors="replace")
        except OSError:
            return None
        self._remove()
        if found := re.search(r"^out of time: (.+)$", text, re.MULTILINE):
            return str(json.loads(found[1])), text
        if re.search(r"^Timeout \(", text, re.MULTILINE) and (found := re.match(r"time limit: (.+)\n", text)):
            return str(json.loads(found[1])), text
        found = re.search(r"^Fatal Python error: (.+)$", text, re.MULTILINE)
        return (ended_by(_SAID[found[1]]), text) if found and found[1] in _SAID else None

    @contextmanager
    def written(self) -> Iterator[None]:
        """Inside, a native fault of this process is written down; where no file can be made, it is not."""
        file = None
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("w")
        if file is None:
            yield
            return
        before = faulthandler.is_enabled()
        with file:
            faulthandler.enable(file)
            self._file = file
            try:
                yield
            finally:
                self._file = None
                faulthandler.disable()
                if before and sys.__stderr__ is not None:
                    with suppress(OSError, ValueError):
                        faulthandler.enable(sys.__stderr__)
                self._remove()

    @contextmanager
    def ended_after(self, seconds: float, reason: str) -> Iterator[None]:
        """Inside of :meth:`written`: this process ends after so many seconds with a note, and without a word.

        A call that holds Python's lock stops every thread that could look at a clock; this one needs no lock.
        """
        if self._file is None:
            yield
            return
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"time limit: {json.dumps(reason)}\n")
        self._file.flush()
        faulthandler.dump_traceback_later(min(seconds, _LONGEST), exit=True, file=self._file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def leave(self, name: str, reason: str) -> None:
        """End this process, since a job is stuck in code that cannot be told that its time is over."""
        with suppress(OSError), self._path.open("a") as file:
            file.write(f"out of time: {json.dumps(reason)}\n")
            faulthandler.dump_traceback(file)
        what = f"error: {name} {reason}, in code that cannot be interrupted: this process ends"
        print(f"{what}; the next search books the trial as failed, and goes on", file=sys.stderr, flush=True)
        leave_process(1)

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink()
            self._path.parent.rmdir()  # where it was the last one
