"""Clocks, rates, medians and the machine."""

import gc
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from naskd.training.compute import Compute

Row = dict[str, Any]


def machine(compute: Compute) -> Row:
    """Hardware and versions, for the books."""
    facts = compute.environment()
    name = str(facts["device_name"]) if compute.device.type == "cuda" else _processor()
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "device_name": name,
        "platform": platform.platform(),
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "threads": compute.threads,
        "precision": str(facts["precision"]),
        "channels_last": compute.channels_last,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def synchronise(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


def timed(compute: Compute, call: Callable[[], object]) -> float:
    """Seconds of a call, the device's work included."""
    synchronise(compute)
    began = time.perf_counter()
    call()
    synchronise(compute)
    return time.perf_counter() - began


def matmul_rate(compute: Compute, size: int) -> float:
    """MAC/s of this machine in a square matrix product of `size`, in the precision and with the threads of a run."""
    dtype = torch.bfloat16 if compute.bfloat16 else torch.float32
    left, right = (torch.randn(size, size, device=compute.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    count = 50 if compute.device.type == "cuda" else 3

    def products() -> None:
        for _ in range(count):
            torch.matmul(left, right, out=out)

    products()
    return count * size**3 / timed(compute, products)


def in_turns(arms: Sequence[Any], rounds: int) -> Iterator[tuple[int, Any]]:
    """Each arm once a round, each time another one first."""
    for number in range(rounds):
        start = number % len(arms)
        for arm in (*arms[start:], *arms[:start]):
            yield number, arm
            gc.collect()


def values(rows: Sequence[Row], key: str, **same: Any) -> list[float]:
    """`key` of the rows that have it and these values, by repetition."""
    chosen = [
        row for row in rows if key in row and all(row.get(name) == value for name, value in same.items())
    ]
    return [row[key] for row in sorted(chosen, key=lambda row: row.get("repetition", 0))]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Repetition by repetition."""
    return [a / b for a, b in zip(above, below, strict=True)]


def middle(found: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    if not found:
        return "-"
    return f"{statistics.median(found):,.{digits}f} ({min(found):,.{digits}f} to {max(found):,.{digits}f})"


def verdict(met: bool) -> str:
    return "met" if met else "missed"


def interval(found: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """T interval of the mean."""
    from scipy.stats import t

    if len(found) < 2:
        return -math.inf, math.inf
    spread = statistics.stdev(found) / math.sqrt(len(found))
    half = float(t.ppf((1 + level) / 2, len(found) - 1)) * spread
    return statistics.fmean(found) - half, statistics.fmean(found) + half


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)
