"""Logits (KD): Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. 2015, arXiv 1503.02531.

Differs: the Kullback-Leibler divergence in place of the paper's soft cross-entropy, as in all later work: the
gradients are equal, and the value is 0 when the student agrees. The sum over classes is averaged over the
batch; some public code averages over classes as well, which divides the term by K.
"""

from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss, soft_divergence
from naskd.nn.taps import Taps


def logits_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 (1/B) sum_b KL(softmax(z_t / T) || softmax(z_s / T))``.

    The factor ``T^2`` keeps the size of the gradient: for large ``T`` and zero-mean logits it is ``(z_s -
    z_t) / (B K)``.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)`` of the same classes in the same order.
        temperature: ``T > 0``.

    Returns:
        Scalar, at least 0.
    """
    return soft_divergence(student, teacher, temperature).mean()


class LogitsLoss(ResponseLoss):
    """:func:`logits_loss` of the two networks' logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`logits_loss`."""
        return KnowledgeOutput(logits_loss(*self.logits(student, teacher), self.settings.temperature))
