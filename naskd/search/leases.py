"""Who runs a trial, and whether that process still lives.

A running trial names its owner and is renewed while it reports. The trial of a dead process on this host is
an orphan at once; of a process on another host, when its lease has expired.
"""

import os
import socket
import time
from pathlib import Path

LEASE_SECONDS = 600.0
RENEW_SECONDS = 20.0


def owner_id() -> str:
    """``host:pid:start``; the start time tells a process from a later one of the same number."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_time(os.getpid())}"


def is_alive(owner: str, expires: float) -> bool:
    """Whether the owner of a running trial may still finish it.

    Args:
        owner: From :func:`owner_id`.
        expires: Seconds since the epoch at which the lease ends unless it is renewed.
    """
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    if host == socket.gethostname() and rest.isdigit():
        return _start_time(int(rest)) == owner.rpartition(":")[2]
    return time.time() < expires


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
