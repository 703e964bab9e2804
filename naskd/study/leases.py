"""Who runs a trial, and whether that driver still lives.

A running trial names its owner, and a driver counts up a number of its own in the storage while it lives. On the same
host its process is looked for. Of any other driver it only matters whether its number changes within a lease, by the
monotonic clock of the one who watches: no two clocks are compared, for one of them may be wrong, or be set meanwhile.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from naskd.spec.clock import Clock
from naskd.spec.processes import host, start_time

_LOG = logging.getLogger(__name__)

LEASE_SECONDS = 600.0
"""A driver that gives no sign of life for so long has died."""
RENEW_SECONDS = 20.0
"""How often a driver gives one."""
MOST_SECONDS = 3 * RENEW_SECONDS
"""Between two looks at another driver no more than this counts as silence: the watcher itself may have slept."""


def owner_id() -> str:
    """``host:pid:start@boot.machine``; the start time tells a process from a later one of the same number.

    What follows the ``@`` tells two machines of one name from one machine before and after a restart. Earlier versions
    did not write it.
    """
    return f"{host()}:{os.getpid()}:{start_time(os.getpid())}{_system()}"


def process_lives(owner: str) -> bool | None:
    """Whether the process of a driver lives; None where that cannot be seen from here.

    Args:
        owner: From :func:`owner_id`.
    """
    where, _, number = owner.rpartition(":")[0].rpartition(":")
    start, at, system = owner.rpartition(":")[2].partition("@")
    if where != host() or not number.isdigit():
        return None
    if at and at + system != _system():
        # Another machine of this name, or this one before it was started again.
        machine = system.partition(".")[2]
        return False if machine and machine == _system().partition(".")[2] else None
    return bool(start) and start_time(int(number)) == start


class Silence:
    """For how long other drivers have given no sign of life.

    Args:
        clock: Of this host; only its differences count.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: dict[str, tuple[object, float, float]] = {}

    def hear(self, owner: str, sign: object) -> None:
        """Note what a driver has written last: anything that differs from what it wrote before. Any thread may."""
        now = self._clock.monotonic()
        with self._lock:
            known, silent, at = self._heard.get(owner, (None, 0.0, now))
            silent = silent + min(now - at, MOST_SECONDS) if known == sign else 0.0
            self._heard[owner] = sign, silent, now

    def seconds(self, owner: str) -> float:
        """Since the last sign that differed, as far as it was watched; 0 for a driver that was not heard of."""
        with self._lock:
            return self._heard.get(owner, (None, 0.0, 0.0))[1]

    @property
    def owners(self) -> tuple[str, ...]:
        """Who was heard of."""
        with self._lock:
            return tuple(self._heard)


@contextmanager
def renewing(renew: Callable[[], None]) -> Iterator[None]:
    """Call `renew` now and then while inside, in a thread of its own: an epoch may take longer than a lease.

    Now and then is in real time, whatever clock the study has: other drivers are real.
    """
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(RENEW_SECONDS):
            try:
                renew()
            # Whatever a storage raises: there is time to try again, and the search meets it too.
            except Exception as error:
                _LOG.warning("the sign of life could not be written, which is tried again: %s", error)

    thread = threading.Thread(target=keep, name="naskd-leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@cache
def _system() -> str:
    """``@boot.machine``: this start of this machine, and the machine; "" where it does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return f"@{_digits(boot)}.{_digits(machine)}"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8] if text else ""
