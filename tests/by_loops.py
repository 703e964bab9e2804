"""Formulas that several tests derive anew: numbers in float64, one sample and one class at a time, without torch."""

import math
from collections.abc import Sequence

Row = Sequence[float]


def softened(logits: Row, temperature: float = 1.0) -> list[float]:
    """``softmax(z / T)`` of one sample."""
    powers = [math.exp(z / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def divergence(target: Row, said: Row) -> float:
    """``KL(target || said)`` of two distributions."""
    return sum(p * (math.log(p) - math.log(q)) for p, q in zip(target, said, strict=True))


def cross_entropy(logits: Row, label: int) -> float:
    """Of one sample with its label."""
    return -math.log(softened(logits)[label])


def mean(values: Sequence[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)
