"""DKD: Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation. CVPR 2022, arXiv 2203.08679, equation 7.

Differs: the authors' code takes logarithms of sums of probabilities, which are infinite for a student that is surely
right (at T = 1 from a gap of about 100 between logits), and blinds the label with -1000. Here the masses of the label
and of the rest are logits themselves, by logsumexp, and the label is taken out. The authors let the term grow over the
first 20 epochs; here its weight is constant.
"""

import torch
from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss, other_logits, soft_divergence, target_logit
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps


def dkd_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float, beta: float
) -> Tensor:
    """``T^2 (1/B) sum_b [alpha KL(b_t || b_s) + beta KL(q_t || q_s)]``.

    With ``p = softmax(z / T)``, ``b = (p_y, 1 - p_y)`` says whether it is the label, and ``q_k = p_k / (1 - p_y)`` what
    else it would be. KD is ``alpha = 1`` and ``beta = 1 - p_t(y)``, which vanishes where the teacher is sure.

    Args:
        student: Logits ``(B, K)``, K at least 2; for K = 2 nothing else is left, and the second part is 0.
        teacher: Logits ``(B, K)`` of the same classes in the same order, not differentiated.
        labels: ``(B,)``.
        temperature: ``T > 0``.
        alpha: At least 0.
        beta: At least 0.

    Returns:
        Scalar, at least 0.
    """
    own, other = widened(student), widened(teacher)
    target = soft_divergence(
        _masses(own, labels, temperature), _masses(other, labels, temperature), temperature
    )
    rest = soft_divergence(other_logits(own, labels), other_logits(other, labels), temperature)
    return (alpha * target + beta * rest).mean()


def _masses(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """``(B, 2)`` logits of the label and of all other classes together, whose softmax at ``T`` is b."""
    rest = (other_logits(logits, labels) / temperature).logsumexp(dim=1) * temperature
    return torch.stack([target_logit(logits, labels), rest], dim=1)


class DkdLoss(ResponseLoss):
    """:func:`dkd_loss` of the two networks' logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`dkd_loss`."""
        alpha, beta = (float(self.card.option(self.settings, name)) for name in ("alpha", "beta"))
        logits = self.logits(student, teacher)
        return KnowledgeOutput(dkd_loss(*logits, lesson.labels, self.settings.temperature, alpha, beta))
