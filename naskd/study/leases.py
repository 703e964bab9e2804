"""Who runs a trial, and whether that process still lives.

A running trial names its owner, and its lease is renewed while that lives. The trial of a dead process on this host is
an orphan at once; of a process on another host, when its lease has expired.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from naskd.spec.processes import host, start_time

_LOG = logging.getLogger(__name__)

LEASE_SECONDS = 600.0
RENEW_SECONDS = 20.0


def owner_id() -> str:
    """``host:pid:start``; the start time tells a process from a later one of the same number."""
    return f"{host()}:{os.getpid()}:{start_time(os.getpid())}"


def is_alive(owner: str, expires: float, now: float) -> bool:
    """Whether the owner of a running trial may still finish it.

    Args:
        owner: From :func:`owner_id`.
        expires: Seconds since the epoch at which the lease ends unless it is renewed.
        now: Seconds since the epoch, by this host's clock.
    """
    where, _, pid = owner.rpartition(":")[0].rpartition(":")
    if where == host() and pid.isdigit():
        return start_time(int(pid)) == owner.rpartition(":")[2]
    return now < expires


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
                _LOG.warning("leases could not be renewed, which is tried again: %s", error)

    thread = threading.Thread(target=keep, name="naskd-leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
