"""Losses on logits, and their common option: logit standardization.

Sun, Ren, Li, Wang, Cao: Logit Standardization in Knowledge Distillation. CVPR 2024, arXiv 2403.01427, algorithm 1.
"""

import torch
from torch import Tensor

from naskd.config import KnowledgeTerm
from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, LossInputs, Summary
from naskd.knowledge.precision import widened
from naskd.taps import Taps, TapShapes

_FLOOR = 1e-14


def standardized(logits: Tensor) -> Tensor:
    """``(z - mean) / std`` of each sample: what is left is the shape of the teacher's opinion, not its scale.

    Differs: the small constant (1e-14) stands under the root and not beside the deviation, since a root has no
    gradient at 0, where all logits of a sample are equal.

    Args:
        logits: ``(B, K)``, K at least 2; the deviation is the unbiased one, over ``K - 1``.
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (logits.shape[1] - 1)
    return centred / (variance + _FLOOR).sqrt()


def check_classes(kind: str, student: TapShapes, teacher: TapShapes) -> None:
    """For a loss that compares two networks' logits.

    Raises:
        ValueError: The networks have different numbers of classes.
    """
    if student.n_classes != teacher.n_classes:
        raise ValueError(
            f"knowledge {kind!r} compares classes: the student has {student.n_classes}, "
            f"the teacher {teacher.n_classes}; give the teacher a head of {student.n_classes} classes"
        )


class ResponseLoss(KnowledgeLoss):
    """A loss on the two networks' logits; the summary is ``logits``, ``(B, K)``.

    Raises:
        ValueError: The networks have different numbers of classes.
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


def target_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """``z_y``, ``(B, K)`` and ``(B,)`` to ``(B,)``."""
    return torch.gather(logits, 1, labels[:, None]).squeeze(1)
