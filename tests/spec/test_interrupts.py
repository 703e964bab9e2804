"""Ctrl-C does not cut in two what must stay whole."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from naskd.spec.interrupts import unbroken


def ctrl_c() -> None:
    """As the terminal sends it; the handler has run when this returns."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The handler of Python itself, whatever ran before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "it was put back"
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_the_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - where it is raised is what is tested
        with unbroken():
            ctrl_c()
            done.append("inside")
        done.append("after")
    assert done == ["inside"]


def test_a_second_one_is_heard_at_once() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), unbroken():  # noqa: PT012
        ctrl_c()
        ctrl_c()
        done.append("inside")
    assert done == []


def test_a_handler_that_only_counts_hears_each_once() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    with unbroken():
        with unbroken():
            ctrl_c()
            assert heard == []
        assert heard == [], "the outer one is not over"
    assert heard == [signal.SIGINT]
    with unbroken():
        ctrl_c()
        ctrl_c()
        assert heard == [signal.SIGINT] * 3
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_error_inside_is_not_lost_for_the_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as told, unbroken():  # noqa: PT012
        ctrl_c()
        raise ValueError("of the body")
    assert isinstance(told.value.__context__, ValueError)


def test_it_can_be_used_by_any_thread_and_where_interrupts_are_ignored() -> None:
    found = []

    def work() -> None:
        with unbroken():
            found.append("worked")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with unbroken():
        ctrl_c()
        found.append("ignored")
    assert found == ["worked", "ignored"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
