"""CPUs that this process may use: fewer than the machine has, where somebody has set a limit."""

import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus() -> int:
    """CPUs that this process may use, at least 1: those of its affinity mask, within its control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(
        1,
        min([allowed, *(int(quota) for quota in _quotas(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))]),
    )


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    """CPUs' worth of time that each control group around this process allows, where it sets a limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "cpu", "cpu,cpuacct"):
            continue
        base = root / controllers if controllers else root
        # In a container the path may be the host's, which does not exist here; then its root is the container's.
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            yield from _quota(folder)
            if folder == base:
                break


def _quota(folder: Path) -> Iterator[float]:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text().strip() for name in names).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
