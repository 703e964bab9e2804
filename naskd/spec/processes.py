"""Which process wrote something, and whether it still lives."""

import hashlib
import os
import socket
from pathlib import Path

_HOSTS_NAMESPACE = "4026531836"
"""Linux gives the first namespace of process numbers this number after each boot."""


def host() -> str:
    """Within which process numbers are unique: the host, or a container on it, which may have the host's name."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()
    number = namespace.removeprefix("pid:[").removesuffix("]")
    return socket.gethostname() + ("" if number == _HOSTS_NAMESPACE else f"/{number}")


def writer_id() -> str:
    """``PID-START-HOST`` of this process, for names of files that it writes; the host as eight digits."""
    return f"{os.getpid()}-{start_time(os.getpid())}-{host_digits()}"


def host_digits() -> str:
    """Eight hexadecimal digits that name :func:`host`."""
    return hashlib.sha256(host().encode()).hexdigest()[:8]


def start_time(pid: int) -> str:
    """Clock ticks since boot at which the process started, from ``/proc``; "" when it does not live.

    It tells a process from a later one of the same number. Where there is no ``/proc``, "alive" for any process that
    answers a signal.
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
