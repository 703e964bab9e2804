"""A training that needs more memory than the machine has fails by itself, instead of having its process killed.

Linux promises memory that is not there, and kills a process when it is used: the search with the trial.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RESERVE = 2**28
"""Bytes that are left to others, and to what a process needs to say that it has failed."""


@contextmanager
def bounded_memory(device: str = "cpu") -> Iterator[None]:
    """Within, this process gets no more memory than the machine, or its container, has now.

    Args:
        device: Type of the device that trains. One that is no ``cpu`` says itself when it is full: nothing is done.

    What is refused is an error of whoever asked: torch's says "can't allocate memory". Nothing happens where the system
    does not say what it has.
    """
    available, used = available_bytes(), _of("/proc/self/status", "VmData:")
    if device != "cpu" or available is None or used is None:
        yield
        return
    import resource

    soft, hard = before = resource.getrlimit(resource.RLIMIT_DATA)
    most = used + max(available - _RESERVE, 0)
    for known in before:
        most = most if known == resource.RLIM_INFINITY else min(most, known)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def available_bytes() -> int | None:
    """Memory that a process may take without another's: of the machine or, where that is less, of its container."""
    found = [size for size in (_of("/proc/meminfo", "MemAvailable:"), _of_container()) if size is not None]
    return min(found, default=None)


def _of_container(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the control group of a container still gives; what it only remembers of files is given back when needed."""
    try:
        most = int((folder / "memory.max").read_text())
        current = int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # there is none, or it says "max"
        return None
    files = _of(str(folder / "memory.stat"), "inactive_file", unit=1) or 0
    return max(most - current + files, 0)


def _of(path: str, key: str, unit: int = 1024) -> int | None:
    """Bytes that a line of a file of the system says; None where it does not."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * unit for line in lines if line.startswith(key)), None)
