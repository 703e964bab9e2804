"""Conditional teacher-student learning: Meng, Li, Zhao, Gong. ICASSP 2019, arXiv 1904.12399.

The teacher is heard where it is right, the label where the teacher is wrong, and never both.

Differs: the Kullback-Leibler divergence in place of the soft cross-entropy (the gradients are equal), and a
temperature, which the paper does not have; its ``T^2`` stands on the soft part alone. The choice is made for each
sample before anything is averaged, so that both parts are means over the whole batch.
"""

from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss, soft_divergence
from naskd.nn.taps import Taps


def conditional_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """``T^2 (1/B) sum_b c_b KL(softmax(z_t / T) || softmax(z_s / T))`` and ``1 - c``, ``c_b`` = [argmax z_t = y].

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)`` of the same classes in the same order, not differentiated.
        labels: ``(B,)``.
        temperature: ``T > 0``.

    Returns:
        Scalar, at least 0, and the weights ``(B,)`` of each sample's cross-entropy with the label, 0 or 1.
    """
    divergence = soft_divergence(student, teacher, temperature)
    right = (teacher.argmax(dim=1) == labels).to(divergence.dtype)
    return (right * divergence).mean(), 1 - right


class ConditionalLoss(ResponseLoss):
    """:func:`conditional_loss` of the two networks' logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`conditional_loss`."""
        logits = self.logits(student, teacher)
        return KnowledgeOutput(*conditional_loss(*logits, lesson.labels, self.settings.temperature))
