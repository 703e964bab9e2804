"""DIST: Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher. NeurIPS 2022, arXiv 2205.10536.

Differs: each side's norm is held above 1e-8, where the authors' code adds that to the product of the two norms; a
batch of one, in which a class has nothing to be correlated with, gives 0 and not a constant.
"""

import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps

_FLOOR = 1e-8


def dist_loss(student: Tensor, teacher: Tensor, temperature: float, beta: float, gamma: float) -> Tensor:
    """``beta T^2 (1 - mean_b r(p_s[b, :], p_t[b, :])) + gamma T^2 (1 - mean_k r(p_s[:, k], p_t[:, k]))``.

    ``p = softmax(z / T)`` and ``r`` the Pearson correlation, 0 where a side is constant. The second part needs a
    batch that shows a class more than once to say much. For K = 2 the first part knows only who is ahead, and has no
    gradient.

    Args:
        student: Logits ``(B, K)``; 0 for B = 1.
        teacher: Logits ``(B, K)`` of the same classes in the same order, not differentiated.
        temperature: ``T > 0``.
        beta: Weight of the correlation between classes, at least 0.
        gamma: Weight of the correlation between samples, at least 0.

    Returns:
        Scalar in [0, 2 (beta + gamma) T^2].
    """
    own = F.softmax(widened(student) / temperature, dim=1)
    if len(own) < 2:
        return 0 * own.sum()
    other = F.softmax(widened(teacher).detach() / temperature, dim=1)
    between_classes = 1 - _correlation(own, other, dim=1).mean()
    between_samples = 1 - _correlation(own, other, dim=0).mean()
    return temperature**2 * (beta * between_classes + gamma * between_samples)


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Pearson's, along `dim`."""
    a, b = (F.normalize(x - x.mean(dim=dim, keepdim=True), dim=dim, eps=_FLOOR) for x in (a, b))
    return (a * b).sum(dim=dim)


class DistLoss(ResponseLoss):
    """:func:`dist_loss` of the two networks' logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`dist_loss`."""
        beta, gamma = (float(self.card.option(self.settings, name)) for name in ("beta", "gamma"))
        return KnowledgeOutput(
            dist_loss(*self.logits(student, teacher), self.settings.temperature, beta, gamma)
        )
