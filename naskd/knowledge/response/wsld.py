"""WSLD: Zhou et al.: Rethinking Soft Labels for Knowledge Distillation. ICLR 2021, arXiv 2102.00650.

Differs: the Kullback-Leibler divergence in place of the authors' soft cross-entropy; since the weights are not
differentiated (in their code neither), the gradients are equal, and the value is 0 when the student agrees. With
``standardize`` the weights are still those of the raw logits: standardized, a sure teacher's cross-entropy would be as
large as an unsure one's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss, soft_divergence
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps

_FLOOR = 1e-7


@torch.no_grad()
def soft_label_weights(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """``1 - exp(-CE(z_s, y) / (CE(z_t, y) + 1e-7))``: small where the student is already better than its teacher.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)``.
        labels: ``(B,)``.

    Returns:
        ``(B,)`` in [0, 1], not differentiated.
    """
    own, other = (F.cross_entropy(widened(z), labels, reduction="none") for z in (student, teacher))
    return -torch.expm1(-own / (other + _FLOOR))


def wsld_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """``T^2 (1/B) sum_b w_b KL(softmax(z_t / T) || softmax(z_s / T))``, ``w`` of :func:`soft_label_weights`.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)`` of the same classes in the same order, not differentiated.
        labels: ``(B,)``.
        temperature: ``T > 0``; the weights are at T = 1.

    Returns:
        Scalar, at least 0.
    """
    weights = soft_label_weights(student, teacher, labels)
    return (weights * soft_divergence(student, teacher, temperature)).mean()


class WsldLoss(ResponseLoss):
    """:func:`wsld_loss` of the two networks' logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`wsld_loss`."""
        weights = soft_label_weights(student.logits, teacher["logits"], lesson.labels)
        divergence = soft_divergence(*self.logits(student, teacher), self.settings.temperature)
        return KnowledgeOutput((weights * divergence).mean())
