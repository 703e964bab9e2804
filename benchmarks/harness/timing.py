"""Clocks, and arms that take turns."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from naskd.training.compute import Compute


def synchronise(compute: Compute) -> None:
    """Wait until the device has done what it was given."""
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
    """Each arm once a round, each time another one first: what slows a machine down meets all alike."""
    for number in range(rounds):
        start = number % len(arms)
        for arm in (*arms[start:], *arms[:start]):
            yield number, arm
            gc.collect()


def alternating(calls: Sequence[Callable[[], object]], count: int, limit: float) -> list[list[float]]:
    """Seconds of each of short calls, which take turns; the first five of each are not counted.

    Args:
        calls: To be compared.
        count: Of each that are counted.
        limit: Seconds after which a few are enough.
    """
    taken: list[list[float]] = [[] for _ in calls]
    until = time.perf_counter() + limit
    for turn in range(count + 5):
        if turn > 10 and time.perf_counter() > until:
            break
        for call, times in zip(calls, taken, strict=True):
            began = time.perf_counter()
            call()
            if turn >= 5:
                times.append(time.perf_counter() - began)
    return taken
