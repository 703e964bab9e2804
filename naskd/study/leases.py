"""Who runs a trial, and whether that process still lives.

A running trial names its owner, and its lease is renewed while that lives. The trial of a dead process on this host is
an orphan at once; of a process on another host, when its lease has expired.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOG = logging.getLogger(__name__)

LEASE_SECONDS = 600.0
RENEW_SECONDS = 20.0
_HOSTS_NAMESPACE = "4026531836"
"""Linux gives the first namespace of process numbers this number after each boot."""


def owner_id() -> str:
    """``host:pid:start``; the start time tells a process from a later one of the same number."""
    return f"{_host()}:{os.getpid()}:{_start_time(os.getpid())}"


def is_alive(owner: str, expires: float, now: float) -> bool:
    """Whether the owner of a running trial may still finish it.

    Args:
        owner: From :func:`owner_id`.
        expires: Seconds since the epoch at which the lease ends unless it is renewed.
        now: Seconds since the epoch, by this host's clock.
    """
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host == _host() and rest.isdigit():
        return _start_time(int(rest)) == owner.rpartition(":")[2]
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


def _host() -> str:
    """Within which process numbers are unique: the host, or a container on it, which may have the host's name."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()
    number = namespace.removeprefix("pid:[").removesuffix("]")
    return socket.gethostname() + ("" if number == _HOSTS_NAMESPACE else f"/{number}")


def _start_time(pid: int) -> str:
    """Clock ticks since boot at which the process started, from ``/proc``; "" when it does not live.

    Where there is no ``/proc``, "alive" for any process that answers a signal.
    """
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "alive"
    try:
        # The second field is the command in parentheses and may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended: only its parent has not looked yet.
    return "" if fields[0] in "ZX" else fields[19]
