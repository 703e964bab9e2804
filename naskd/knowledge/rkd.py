"""RKD: Park, Kim, Lu, Cho: Relational Knowledge Distillation. CVPR 2019, arXiv 1904.05068, equations 4 to 9.

Differs: like the authors' code, both terms are averages over all B^2 pairs and B^3 triplets, degenerate ones
included (they contribute 0), where the paper sums over distinct ones. The mean distance is over distinct
pairs, as in the paper (the authors' code leaves out distances of 0). A small constant, relative to the mean
squared distance of the batch, stands inside the square root, since otherwise two equal embeddings have
infinite gradients (2.5e9 in public code).

Memory: four (B, B, B) tensors at once and none kept for the backward pass, whatever the number of features:
256 MiB at B = 256 in float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.config import KnowledgeTerm
from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.precision import widened
from naskd.knowledge.similarity import squared_distances
from naskd.taps import Taps, TapShapes

_RELATIVE_FLOOR = 1e-8
_ABSOLUTE_FLOOR = 1e-12


def rkd_loss(
    student: Tensor, teacher: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0
) -> Tensor:
    """``w_d mean_ij h(d_s / mu_s, d_t / mu_t) + w_a mean_ijk h(cos_s, cos_t)``, h Huber with delta 1.

    ``d`` are distances between embeddings, ``mu`` their mean over distinct pairs, ``cos`` of the angle that
    samples i and k make at j. Neither changes when the embeddings are moved, rotated or scaled. Both terms
    are 0 for B < 3: one pair is always as long as the mean pair.

    Args:
        student: ``(B, D_s)``.
        teacher: ``(B, D_t)``, never differentiated; the two numbers of features may differ.
        distance_weight: ``w_d``, at least 0; a term of weight 0 is not computed.
        angle_weight: ``w_a``, likewise.

    Returns:
        Scalar, at least 0.
    """
    squared_student, squared_teacher = (
        # what rounding leaves below 0 is far below the floor of `_distances`
        squared_distances(x).to(widened(x).dtype)
        for x in (student, teacher.detach())
    )
    student_distances, teacher_distances = _distances(squared_student), _distances(squared_teacher)
    loss = squared_student.new_zeros(())
    if distance_weight:
        ratios = _over_mean(student_distances), _over_mean(teacher_distances)
        loss = loss + distance_weight * F.smooth_l1_loss(*ratios)
    if angle_weight:
        target = _cosines(squared_teacher, 1 / teacher_distances)
        loss = loss + angle_weight * _angle_term(squared_student, 1 / student_distances, target)
    return loss


def _without_diagonal(x: Tensor) -> Tensor:
    return x * (1 - torch.eye(len(x), dtype=x.dtype, device=x.device))


def _mean_of_distinct(x: Tensor) -> Tensor:
    """Mean of a ``(B, B)`` tensor off its diagonal, which is 0; 0 for a batch of one."""
    return x.sum() / max(len(x) * (len(x) - 1), 1)


def _distances(squared: Tensor) -> Tensor:
    """Positive everywhere, the diagonal included, so that one may divide by them.

    The constant under the root is relative to the batch, so that the scale of the features still cancels; the
    absolute one is for a batch of equal samples.
    """
    floor = _RELATIVE_FLOOR * _mean_of_distinct(squared).detach() + _ABSOLUTE_FLOOR
    return (squared + floor).sqrt()


def _over_mean(distances: Tensor) -> Tensor:
    """``psi_D``, equation 4."""
    distinct = _without_diagonal(distances)
    return distinct / (_mean_of_distinct(distinct) + _ABSOLUTE_FLOOR)


def _cosines(squared: Tensor, inverse: Tensor) -> Tensor:
    """``(B, B, B)``, at ``[j, i, k]`` the cosine of the angle at j between i and k; 0 where i or k is j.

    Law of cosines, ``(|ij|^2 + |jk|^2 - |ik|^2) / (2 |ij| |jk|)``, so that only the (B, B) distances are
    needed.

    Args:
        squared: ``(B, B)``, the squared distances.
        inverse: ``(B, B)``, one over the distances.
    """
    cosines = squared[:, :, None] + squared[:, None, :]
    cosines -= squared[None, :, :]
    cosines *= inverse[:, :, None] / 2
    cosines *= inverse[:, None, :]
    return cosines


class _AngleTerm(torch.autograd.Function):
    """Mean Huber loss between the student's cosines and a target, with its gradient worked out at once.

    Left to autograd, four (B, B, B) tensors are kept and some thirty written: 14 ms instead of 2 at B = 64 on
    one core, more than the rest of the step of a small student.
    """

    @staticmethod
    def forward(ctx: Any, squared: Tensor, inverse: Tensor, target: Tensor) -> Tensor:
        """Arguments as of :func:`_cosines`, for the student; target ``(B, B, B)``."""
        cosines = _cosines(squared, inverse)
        value = F.smooth_l1_loss(cosines, target)
        slope = (cosines - target).clamp_(-1, 1).div_(target.numel())
        # i and k play equal parts, so that each sum over one of them counts twice
        by_inverse = 2 * cosines.mul_(slope).sum(dim=2) / inverse
        slope *= inverse[:, None, :]
        by_squared = slope.sum(dim=2) * inverse
        slope *= inverse[:, :, None]
        ctx.save_for_backward(by_squared - slope.sum(dim=0) / 2, by_inverse)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        by_squared, by_inverse = ctx.saved_tensors
        return gradient * by_squared, gradient * by_inverse, None


def _angle_term(squared: Tensor, inverse: Tensor, target: Tensor) -> Tensor:
    term = _AngleTerm.apply(squared, inverse, target)
    assert isinstance(term, Tensor)
    return term


class RkdLoss(KnowledgeLoss):
    """:func:`rkd_loss` of the pooled features; the summary is ``pooled``, ``(B, D_t)``."""

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.distance_weight = float(self.card.option(term, "distance_weight"))
        self.angle_weight = float(self.card.option(term, "angle_weight"))
        if not (self.distance_weight or self.angle_weight):
            raise ValueError(
                f"distance_weight and angle_weight of knowledge {term.kind!r} are both 0, which teaches "
                "nothing; allowed: at least one above 0"
            )

    def summarise(self, teacher: Taps) -> Summary:
        """What the teacher's classifier sees."""
        return {"pooled": teacher.pooled.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """What the student's classifier sees."""
        return (student.pooled,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`rkd_loss`."""
        return KnowledgeOutput(
            rkd_loss(student.pooled, teacher["pooled"], self.distance_weight, self.angle_weight)
        )
