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

from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.precision import widened
from naskd.knowledge.relation.similarity import squared_distances
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError

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
    squared = [
        # what rounding leaves below 0 is far below the floor of `_Relations`
        squared_distances(x).to(widened(x).dtype)
        for x in (student, teacher.detach())
    ]
    term = _Relations.apply(*squared, distance_weight, angle_weight)
    assert isinstance(term, Tensor)
    return term


class _Relations(torch.autograd.Function):
    """Both terms of the squared distances, with their gradient worked out at once.

    Left to autograd, four (B, B, B) tensors are kept and some thirty written, and a hundred small operations follow,
    which takes longer than the rest of the step of a small student.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, w_d: float, w_a: float) -> Tensor:
        """Of squared distances ``(B, B)``."""
        squared = torch.stack((student, teacher.to(student.dtype)))
        n = squared.shape[-1]
        pairs = max(n * (n - 1), 1)
        # Positive everywhere, the diagonal included, so that one may divide by them. The floor is relative to the
        # batch, so that the scale of the features still cancels; the absolute one is for a batch of equal samples.
        floor = squared.sum((1, 2), keepdim=True) * (_RELATIVE_FLOOR / pairs) + _ABSOLUTE_FLOOR
        distances = (squared + floor).sqrt_()
        inverse = 1 / distances
        value = student.new_zeros(())
        slope = torch.zeros_like(student)  # by squared distance
        if w_d:
            distances.diagonal(dim1=1, dim2=2).zero_()
            mean = distances.sum((1, 2), keepdim=True) / pairs + _ABSOLUTE_FLOOR
            ratios = distances / mean  # psi_D, equation 4
            value, by_ratio = _huber(ratios[0], ratios[1], w_d)
            by_distance = (by_ratio - (by_ratio * ratios[0]).sum() / pairs) / mean[0]
            by_distance.fill_diagonal_(0)
            slope += by_distance * inverse[0] / 2
        if w_a:
            angles, by_squared = _angle_term(squared, inverse, w_a)
            value = value + angles
            slope += by_squared
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        slope: Tensor = ctx.saved_tensors[0]
        return gradient * slope, None, None, None


def _huber(own: Tensor, target: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """``weight mean h(own - target)`` and its gradient by `own`."""
    value = weight * F.smooth_l1_loss(own, target)
    return value, (own - target).clamp_(-1, 1).mul_(weight / own.numel())


def _angle_term(squared: Tensor, inverse: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """The term of the angles and its gradient by the student's squared distances.

    The cosines, ``(B, B, B)``, are at ``[j, i, k]`` that of the angle at j between i and k, and 0 where i or k is j. By
    the law of cosines, ``(|ij|^2 + |jk|^2 - |ik|^2) / (2 |ij| |jk|)``, only the (B, B) distances are needed.

    Args:
        squared: ``(2, B, B)``, of student and teacher.
        inverse: ``(2, B, B)``, one over the distances.
        weight: Of the term.
    """
    cosines = squared[:, :, :, None] + squared[:, :, None, :]
    cosines -= squared[:, None, :, :]
    cosines *= inverse[:, :, :, None] / 2
    cosines *= inverse[:, :, None, :]
    value, slope = _huber(cosines[0], cosines[1], weight)
    own = inverse[0]
    # i and k play equal parts, so that each sum over one of them counts twice. A distance is the root of its square.
    by_squared = -(cosines[0].mul_(slope).sum(dim=2) * own.square())
    slope *= own[:, None, :]
    by_squared += slope.sum(dim=2) * own
    slope *= own[:, :, None]
    by_squared -= slope.sum(dim=0) / 2
    return value, by_squared


class RkdLoss(KnowledgeLoss):
    """:func:`rkd_loss` of the pooled features; the summary is ``pooled``, ``(B, D_t)``."""

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.distance_weight = float(self.card.option(term, "distance_weight"))
        self.angle_weight = float(self.card.option(term, "angle_weight"))
        if not (self.distance_weight or self.angle_weight):
            raise InputError(
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
