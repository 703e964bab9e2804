"""Code of a user's is called: when it takes too long it is ended, and when it leaves the process that is an error.

On the ground floor, since a space, a teacher's builder and a training are all called so.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

LOOK_SECONDS = 1.0
"""How often it is looked whether the time is over."""
AGAIN_SECONDS = 5.0
"""After how long code that has caught :class:`OutOfTimeError` is told again."""
IMPORT_SECONDS = 10.0
"""How long an import is waited for. One that is broken off leaves modules half made: whatever uses them in the same
process later fails. The first training of a process imports hundreds."""
STUCK_SECONDS = 15.0
"""After how long code that cannot be told, since it does not come back to Python, counts as stuck."""

leave_process = os._exit
"""The real one; inside of :func:`exit_raises` a user's code finds another."""


class OutOfTimeError(BaseException):
    """Raised in code whose time is over. No ``Exception``, since a user's code may catch all of these."""


_reason = ""
"""Why the thread that is being told is told."""


@contextmanager
def ended_when(
    overdue: Callable[[], str], *, stuck: Callable[[str], None] | None = None, every: float = LOOK_SECONDS
) -> Iterator[None]:
    """Inside, :class:`OutOfTimeError` is raised as soon as `overdue` gives a reason.

    A sleep or a wait of the main thread is broken off; of another thread it is not. What computes in C is told when it
    comes back to Python, and what imports when it has, or after :data:`IMPORT_SECONDS`. ``os._exit`` raises
    ``SystemExit``: otherwise a search would end without a word.

    Args:
        overdue: Called in a thread of its own; "" while there is time.
        stuck: Called there with the reason, where the code could not be told. None: it is waited for.
        every: Seconds between calls of `overdue`.
    """
    told, in_main = threading.get_ident(), threading.current_thread() is threading.main_thread()
    over, lock = threading.Event(), threading.Lock()

    def watch() -> None:
        first = last = 0.0
        while not over.wait(every):
            reason, now = overdue(), time.monotonic()
            with lock:
                if not reason or over.is_set():
                    continue
                first = first or now
                if stuck is not None and now - first >= STUCK_SECONDS:
                    stuck(reason)
                if now - first < IMPORT_SECONDS and _imports(told):
                    continue
                if not last or now - last >= AGAIN_SECONDS:
                    last = now
                    _tell(told, in_main, reason)

    before = signal.signal(signal.SIGALRM, _raise) if in_main else None
    thread = threading.Thread(target=watch, name="naskd-time", daemon=True)
    try:
        thread.start()
        with exit_raises():
            yield
    finally:
        try:
            with lock:
                over.set()
            if thread.is_alive():  # a Ctrl-C may have come before it began
                thread.join()
        finally:
            if in_main:
                signal.signal(signal.SIGALRM, before)


@contextmanager
def within(seconds: float, reason: str) -> Iterator[None]:
    """Inside, :class:`OutOfTimeError` is raised with `reason` after so many seconds; see :func:`ended_when`."""
    began = time.monotonic()
    with ended_when(
        lambda: reason if time.monotonic() - began >= seconds else "", every=min(LOOK_SECONDS, seconds / 2)
    ):
        yield


def _imports(thread: int) -> bool:
    """Whether a thread is within an ``import``."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _tell(thread: int, in_main: bool, reason: str) -> None:
    global _reason
    _reason = reason
    if in_main:
        signal.pthread_kill(thread, signal.SIGALRM)
    else:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(OutOfTimeError))


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise OutOfTimeError(_reason)


@contextmanager
def exit_raises() -> Iterator[None]:
    """Inside, ``os._exit`` of this process raises ``SystemExit``, so that code of a user's ends nothing without a word.

    That of a process forked from it is what it was.
    """
    here, before = os.getpid(), os._exit

    def leave(status: int) -> None:
        if os.getpid() != here:
            before(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = leave  # type: ignore[assignment]  # it returns no more than the real one
    try:
        yield
    finally:
        os._exit = before
