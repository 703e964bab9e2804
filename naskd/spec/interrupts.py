"""Ctrl-C, and what it must not cut in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def unbroken(*, ends: bool = False) -> Iterator[None]:
    """Inside, a Ctrl-C is heard at the end only; a second one at once, for what never ends.

    An exception between any two instructions would leave a lock behind, or a write half known. Python interrupts the
    main thread alone, so other threads need nothing.

    Args:
        ends: What is inside waits for nobody, so that it always ends: a second one is heard at the end, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored, or left to the system
        yield
        return
    heard: list[FrameType | None] = []

    def pass_on() -> None:
        signal.signal(signal.SIGINT, before)
        while heard:
            before(signal.SIGINT, heard.pop(0))

    def later(_number: int, frame: FrameType | None) -> None:
        heard.append(frame)
        if len(heard) > 1 and not ends:
            pass_on()

    signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        pass_on()
