"""Ctrl-C, and what it must not cut in two."""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_SECONDS = 0.05
"""After so long a Ctrl-C is heard again that was dropped: by then what dropped it has returned."""


class _Kept:
    """The handler of :func:`kept`: what Python's own does, and a note of it."""

    heard = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.heard = True
        raise KeyboardInterrupt


_kept: _Kept | None = None
"""The handler while there is one, also where another one stands in front of it."""


@contextmanager
def kept() -> Iterator[None]:
    """Inside, no Ctrl-C is lost that Python's own handler would have heard.

    Python drops an exception in a callback, of which an import makes many; and a package that tries whether another one
    is there may drop it, too. In the first case it is raised again, in the second at the next :func:`heed`.
    """
    global _kept
    in_main = threading.current_thread() is threading.main_thread()
    # Who has a handler of their own hears by that one.
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    handler, told = _Kept(), sys.unraisablehook

    def dropped(what: "sys.UnraisableHookArgs") -> None:
        if handler.heard and issubclass(what.exc_type, KeyboardInterrupt):
            _thread.start_new_thread(_again, ())
        else:
            told(what)

    _kept, sys.unraisablehook = handler, dropped
    signal.signal(signal.SIGINT, handler)
    try:
        with unmasked():
            yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _kept, sys.unraisablehook = None, told


@contextmanager
def unmasked() -> Iterator[None]:
    """Inside, an exception after a Ctrl-C that :func:`kept` heard is a ``KeyboardInterrupt`` again.

    A library may make its own of it, and name it in the text at best: pydantic does while it builds a schema.
    """
    try:
        yield
    except Exception as error:  # a library's own, of any class
        if _kept is not None and _kept.heard:
            raise KeyboardInterrupt from error
        raise


def _again() -> None:
    time.sleep(AGAIN_SECONDS)
    main = threading.main_thread().ident
    if _kept is not None and main is not None:  # a real signal, so that a call that waits is woken, too
        signal.pthread_kill(main, signal.SIGINT)


def heed() -> None:
    """Raise ``KeyboardInterrupt`` in the main thread if one was heard inside of :func:`kept`, whatever became of it."""
    if _kept is not None and _kept.heard and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


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
