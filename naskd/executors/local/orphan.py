"""Imported first by the server of workers: it then ends at once when its driver has ended.

By itself it would first import all that it was about to import, and then take apart all that it has: many seconds on a
busy machine, in which a killed search seems to live on.
"""

import atexit
import os
import signal
from types import FrameType

DRIVER = "NASKD_DRIVER"
"""Variable of the environment that says whose server this process is; nobody else has it."""
LOOK_SECONDS = 0.25
"""How often it looks. Workers do not: a process that is forked has no timer of its parent's."""


def _end_without_driver(driver: int) -> None:
    """Have this process end with its parent, and take nothing apart when it ends."""

    def look(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != driver:
            os._exit(0)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)
    atexit.register(os._exit, 0)


if (_driver := os.environ.pop(DRIVER, None)) is not None:
    _end_without_driver(int(_driver))
