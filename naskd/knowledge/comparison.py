"""Losses on logits, what they share, and their common option: logit standardization.

Sun, Ren, Li, Wang, Cao: Logit Standardization in Knowledge Distillation. CVPR 2024, arXiv 2403.01427, algorithm 1.
"""

from typing import Any

import torch
from torch import Tensor

from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, LossInputs, Summary
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError

_FLOOR = 1e-14


def standardized(logits: Tensor) -> Tensor:
    """``(z - mean) / std`` of each sample: what is left is the shape of the teacher's opinion, not its scale.

    Differs: the small constant (1e-14) stands under the root and not beside the deviation, since a root has no
    gradient at 0, where all logits of a sample are equal.

    Args:
        logits: ``(B, K)``, K at least 2; the deviation is the unbiased one, over ``K - 1``.
    """
    # first what all share, exactly: else equal logits differ from their mean by its rounding, and that is blown up
    shifted = logits - logits[:, :1].detach()
    centred = shifted - shifted.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (logits.shape[1] - 1)
    return centred / (variance + _FLOOR).sqrt()


def check_classes(kind: str, student: TapShapes, teacher: TapShapes) -> None:
    """For a loss that compares two networks' logits.

    Raises:
        InputError: The networks have different numbers of classes.
    """
    if student.n_classes != teacher.n_classes:
        raise InputError(
            f"knowledge {kind!r} compares classes: the student has {student.n_classes}, "
            f"the teacher {teacher.n_classes}; give the teacher a head of {student.n_classes} classes"
        )


class ResponseLoss(KnowledgeLoss):
    """A loss on the two networks' logits; the summary is ``logits``, ``(B, K)``.

    Raises:
        InputError: The networks have different numbers of classes.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        if self.card.needs_teacher:
            check_classes(term.kind, student, teacher)
        self.standardize = "standardize" in self.card.options and bool(self.card.option(term, "standardize"))

    def summarise(self, teacher: Taps) -> Summary:
        """The teacher's logits."""
        return {"logits": teacher.logits.detach()} if self.card.needs_teacher else {}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's logits."""
        return (student.logits,)

    def logits(self, student: Taps, teacher: Summary) -> tuple[Tensor, Tensor]:
        """Both networks' logits ``(B, K)`` in float32 at least, standardized where the option says so."""
        own, other = widened(student.logits), widened(teacher["logits"])
        return (standardized(own), standardized(other)) if self.standardize else (own, other)


class SeveralTeachersLoss(KnowledgeLoss):
    """A loss on the logits of a student and of all teachers that it hears.

    Of each teacher the summary is ``logits``, ``(B, K)``.

    Raises:
        InputError: A teacher has other classes than the student.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        for each in given.teachers:
            check_classes(term.kind, student, each)
        self.n_teachers = len(given.teachers)

    def summarise(self, teacher: Taps) -> Summary:
        """Of one teacher."""
        return {"logits": teacher.logits.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's logits."""
        return (student.logits,)

    def said(self, teacher: Summary) -> Tensor:
        """Logits of all teachers, ``(M, B, K)``, in float32 at least."""
        return torch.stack([widened(teacher[f"{i}/logits"]) for i in range(self.n_teachers)])


def divergences(student: Tensor, teachers: Tensor, temperature: float) -> Tensor:
    """:func:`soft_divergence` from each of several teachers, ``(B, K)`` and ``(M, B, K)`` to ``(M, B)``."""
    own = widened(student).expand(len(teachers), *student.shape)
    return soft_divergence(own.flatten(0, 1), teachers.flatten(0, 1), temperature).view(teachers.shape[:2])


def soft_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(softmax(z_t / T) || softmax(z_s / T))`` of each sample.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)`` of the same classes in the same order, not differentiated.
        temperature: ``T > 0``.

    Returns:
        ``(B,)``, at least 0 but for rounding.
    """
    found: Tensor = _SoftDivergence.apply(widened(student), widened(teacher), temperature)
    return found


class _SoftDivergence(torch.autograd.Function):
    """With its gradient ``T (softmax(z_s / T) - softmax(z_t / T))`` worked out at once: half as many operations."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        logs = torch.stack((student, teacher.to(student.dtype))).div_(temperature).log_softmax(dim=2)
        shares = logs.exp()
        ctx.save_for_backward((shares[0] - shares[1]).mul_(temperature))
        divergence: Tensor = (shares[1] * (logs[1] - logs[0])).sum(dim=1)
        return divergence.mul_(temperature**2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        slope: Tensor = ctx.saved_tensors[0]
        return gradient[:, None] * slope, None, None


def target_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """``z_y``, ``(B, K)`` and ``(B,)`` to ``(B,)``."""
    return torch.gather(logits, 1, labels[:, None]).squeeze(1)


def other_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """``z_k`` for ``k`` other than ``y``, ``(B, K)`` and ``(B,)`` to ``(B, K - 1)``, in order.

    Taken out and not masked: of minus infinity a divergence has no gradient, and -1000, as in public code, is too
    little for logits of +-1e4.
    """
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    return torch.gather(logits, 1, columns + (columns >= labels[:, None]))
