"""What the answers of a network on labelled images say about it: whether they can be meant."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from naskd.spec.chance import POSSIBLE, at_least

SURE = 0.01
"""Probability at which one network's being right more often than another's is no accident."""


@dataclass(frozen=True)
class Accuracy:
    """How often a network is right, and how often it would be by chance.

    Args:
        right, n: Images.
        by_chance: Expected fraction if its answers had nothing to do with the labels, each class named as often.
    """

    right: int
    n: int
    by_chance: float

    @property
    def fraction(self) -> float:
        """In [0, 1]."""
        return self.right / self.n

    @property
    def may_be_chance(self) -> bool:
        """Whether as many could be right by chance (a binomial test)."""
        return at_least(self.right, self.n, self.by_chance) > POSSIBLE

    def __str__(self) -> str:
        return f"accuracy {self.fraction:.3f} on {self.n} validation images, {self.by_chance:.3f} by chance"


def measured_accuracy(logits: Tensor, labels: Tensor) -> Accuracy:
    """Of logits ``(N, K)`` and labels ``(N,)``."""
    answers, n_classes = logits.argmax(1), max(logits.shape[1], int(labels.max()) + 1)
    shares = [torch.bincount(x, minlength=n_classes).double() / len(labels) for x in (answers, labels)]
    return Accuracy(int((answers == labels).sum()), len(labels), float(shares[0] @ shares[1]))


def surely_better(one: Tensor, other: Tensor) -> bool:
    """Whether `one` is right on more of the same images than `other`, by 0.1 at least and by no accident.

    Args:
        one: ``(N,)``, true where right.
        other: Likewise.
    """
    wins, losses = int((one & ~other).sum()), int((other & ~one).sum())
    return wins - losses >= 0.1 * len(one) and at_least(wins, wins + losses, 0.5) <= SURE


@dataclass(frozen=True)
class Reordering:
    """Another order of a network's outputs under which it is right far more often.

    Args:
        columns: For each class, the output that means it.
        fraction: Accuracy then, on images that the order was not found with.
    """

    columns: tuple[int, ...]
    fraction: float


def better_order(logits: Tensor, labels: Tensor) -> Reordering | None:
    """The order of outputs that fits the labels best, where it is surely better than the present one.

    It is found on one half of the images and judged on the other, both ways round, so that a network without knowledge
    shows none. At least half of all images must then be right: less is no matter of order.
    """
    answers, n_classes = logits.argmax(1), logits.shape[1]
    if int((answers == labels).sum()) > 0.9 * len(labels):
        return None  # no order is better by enough
    halves = [torch.arange(len(labels)) % 2 == i for i in (0, 1)]
    right = torch.zeros(len(labels), dtype=torch.bool)
    for found, judged in (halves, halves[::-1]):
        columns = torch.tensor(_assignment(answers[found], labels[found], n_classes))
        right[judged] = answers[judged] == columns[labels[judged]]
    fraction = float(right.double().mean())
    if fraction < 0.5 or not surely_better(right, answers == labels):
        return None
    return Reordering(tuple(_assignment(answers, labels, n_classes)), fraction)


def _assignment(answers: Tensor, labels: Tensor, n_classes: int) -> Sequence[int]:
    """For each class the output that is its own, so that most images are right; where it does not matter, as now."""
    # Half a second, and only studies with a foreign teacher need it.
    from scipy.optimize import linear_sum_assignment

    counts = torch.bincount(labels * n_classes + answers, minlength=n_classes**2).view(n_classes, n_classes)
    profit = counts.double() + 0.5 * torch.eye(n_classes, dtype=torch.double)
    _, columns = linear_sum_assignment(profit.numpy(), maximize=True)
    return [int(column) for column in columns]


def kind_of_outputs(logits: Tensor) -> str:
    """``probabilities``, ``log-probabilities`` or ``scores in [0, 1]``, where outputs are that; empty for logits."""
    low, high = float(logits.min()), float(logits.max())
    if low >= -1e-5 and high <= 1 + 1e-5:
        sums = logits.sum(1)
        return "probabilities" if bool(((sums - 1).abs() < 1e-2).all()) else "scores in [0, 1]"
    if high <= 1e-5 and bool((logits.logsumexp(1).abs() < 1e-2).all()):
        return "log-probabilities"
    return ""


def spread(logits: Tensor) -> float:
    """Standard deviation of the logits about each class's mean: the scale on which differences count."""
    return float((logits - logits.mean(0)).square().mean().sqrt())
