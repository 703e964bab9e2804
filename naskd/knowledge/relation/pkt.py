"""PKT: Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer. ECCV 2018.

arXiv 1803.10837.

Differs: this is the authors' code, whose constant everybody uses, and not the paper's sum: the cosine kernel alone, the
divergence averaged over all B^2 pairs, a sample's similarity to itself left in. So the term falls as 1 / B, and a
constant does not carry from one batch size to another. The authors add a supervised term, which the cross-entropy with
the labels is here. Their code has a gradient of NaN where all features of a sample are zero, ours has a finite one.
"""

from torch import Tensor

from naskd.knowledge.base import KnowledgeLoss, KnowledgeOutput, Lesson, Summary
from naskd.knowledge.precision import widened
from naskd.knowledge.relation.similarity import cosines
from naskd.nn.taps import Taps

_FLOOR = 1e-7


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean_ij P_t log((P_t + 1e-7) / (P_s + 1e-7))``.

    ``P_ij = k_ij / sum_l k_il``, ``k_ij = (cos(f_i, f_j) + 1) / 2``, is the probability that sample i picks j as its
    neighbour. It does not change when the features are rotated or scaled, each sample on its own. 0 for a batch of one.

    Args:
        student: ``(B, D_s)``.
        teacher: ``(B, D_t)``, never differentiated; the two numbers of features may differ.

    Returns:
        Scalar, at least 0 but for the small constant.
    """
    own, target = neighbours(student), neighbours(teacher.detach())
    loss = (target * ((target + _FLOOR).log() - (own + _FLOOR).log())).mean()
    return loss.to(widened(student).dtype)


def neighbours(features: Tensor) -> Tensor:
    """``P`` of the cosine kernel, ``(B, D)`` to ``(B, B)`` in float64, rows that sum to 1."""
    # A row sums to at least 1/2: a sample is like itself (1), or zero and half like all.
    kernel = (cosines(features) + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)


class PktLoss(KnowledgeLoss):
    """:func:`pkt_loss` of the pooled features; the summary is ``pooled``, ``(B, D_t)``."""

    def summarise(self, teacher: Taps) -> Summary:
        """What the teacher's classifier sees."""
        return {"pooled": teacher.pooled.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """What the student's classifier sees."""
        return (student.pooled,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`pkt_loss`."""
        return KnowledgeOutput(pkt_loss(student.pooled, teacher["pooled"]))
