"""NKD: Yang et al.: From Knowledge Distillation to Self-Knowledge Distillation. ICCV 2023, arXiv 2303.13005.

Differs: nothing from the authors' code but the way the label is taken out (ports with a mask that is true everywhere
leave it in, others subtract 1000). A cross-entropy, as in the paper: not 0 where student and teacher agree; there the
first part still pulls at the label, and the second has no gradient.
"""

import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss, other_logits, target_logit
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps


def nkd_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, gamma: float) -> Tensor:
    """``(1/B) sum_b [-p_t(y) log p_s(y) - gamma T^2 sum_(k other than y) q_t(k) log q_s(k)]``.

    ``p = softmax(z)``, at T = 1; ``q`` is the softmax of ``z / T`` over the classes other than the label.

    Args:
        student: Logits ``(B, K)``, K at least 2; for K = 2 the second part is 0.
        teacher: Logits ``(B, K)`` of the same classes in the same order, not differentiated.
        labels: ``(B,)``.
        temperature: ``T > 0``, of the second part.
        gamma: Weight of the second part, at least 0.

    Returns:
        Scalar, at least 0.
    """
    own, other = widened(student), widened(teacher).detach()
    target = target_logit(F.softmax(other, dim=1), labels) * target_logit(F.log_softmax(own, dim=1), labels)
    soft = F.softmax(other_logits(other, labels) / temperature, dim=1)
    rest = (soft * F.log_softmax(other_logits(own, labels) / temperature, dim=1)).sum(dim=1)
    return -(target + gamma * temperature**2 * rest).mean()


class NkdLoss(ResponseLoss):
    """:func:`nkd_loss` of the two networks' logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`nkd_loss`."""
        gamma = float(self.card.option(self.settings, "gamma"))
        logits = self.logits(student, teacher)
        return KnowledgeOutput(nkd_loss(*logits, lesson.labels, self.settings.temperature, gamma))
