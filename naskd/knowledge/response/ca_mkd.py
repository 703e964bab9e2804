"""CA-MKD: Zhang, Chen, Wang: Confidence-Aware Multi-Teacher Knowledge Distillation. ICASSP 2022, arXiv 2201.00007.

Section 3.1, equations 1 to 3: of several teachers, those are heard more, image by image, that are surer of the label. A
teacher that is wrong about an image is hardly heard on it.

Defaults are those of the authors' code (github.com/Rorozhl/CA-MKD, CIFAR-100, batches of 64, 240 epochs): T = 4, the
weights at temperature 1, 1 beside the labels, and 50 for the loss on features, which begins after the first epoch.

Differs: the divergence stands in place of the cross-entropy with what teachers say, as in ``logits`` and in that code;
the gradients are equal. The code divides the sum over teachers by their number once more, the equations do not. So the
weight there is ``1 / M`` here. Left out: the loss on intermediate features, whose weights ask each teacher's classifier
about the student's features. A kind on features may teach beside this one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import SeveralTeachersLoss, divergences
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps


@torch.no_grad()
def confidence_weights(teachers: Tensor, labels: Tensor) -> Tensor:
    """``w_mb = (1 - exp(CE_mb) / sum_n exp(CE_nb)) / (M - 1)``, CE of teacher m's answer to image b with its label.

    Args:
        teachers: Logits ``(M, B, K)``, M at least 1.
        labels: ``(B,)``.

    Returns:
        ``(M, B)``, at least 0, with sum 1 over teachers, not differentiated; 1 where there is one teacher.
    """
    n, batch, _ = teachers.shape
    if n == 1:
        return torch.ones(1, batch, dtype=teachers.dtype, device=teachers.device)
    wrong = F.cross_entropy(teachers.flatten(0, 1), labels.repeat(n), reduction="none").view(n, batch)
    return (1 - wrong.softmax(dim=0)) / (n - 1)


def ca_mkd_loss(student: Tensor, teachers: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """``T^2 (1/B) sum_b sum_m w_mb KL(softmax(z_m / T) || softmax(z_s / T))``, w of :func:`confidence_weights`.

    Args:
        student: Logits ``(B, K)``.
        teachers: Logits ``(M, B, K)`` of the same classes in the same order, not differentiated.
        labels: ``(B,)``.
        temperature: ``T > 0``; the weights are at T = 1.

    Returns:
        Scalar, at least 0.
    """
    teachers = widened(teachers)
    apart = divergences(student, teachers, temperature)
    return (confidence_weights(teachers, labels) * apart).sum(dim=0).mean()


class CaMkdLoss(SeveralTeachersLoss):
    """:func:`ca_mkd_loss` of all teachers."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`ca_mkd_loss`."""
        term = ca_mkd_loss(student.logits, self.said(teacher), lesson.labels, self.settings.temperature)
        return KnowledgeOutput(term)
