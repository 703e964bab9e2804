"""MLKD: Jin, Wang, Lin: Multi-level Logit Distillation. CVPR 2023.

Differs: one view of each image, where the authors train on a weak and a strong one. Their confidence masks are left
out: in their code they multiply terms that are already sums, and so only scale them. With ``standardize`` all three
levels see standardized logits; the code of Sun et al. (arXiv 2403.01427) standardizes the first alone.
"""

import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss, soft_divergence
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps

TEMPERATURES = (2.0, 3.0, 4.0, 5.0, 6.0)


def mlkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``sum_T [T^2 (1/B) sum_b KL(p_t || p_s) + (1/B) |P_s P_s^T - P_t P_t^T|^2 + (1/K) |P_s^T P_s - P_t^T P_t|^2]``.

    ``p = softmax(z / T)`` for ``T`` in {2, 3, 4, 5, 6}, ``P`` the ``(B, K)`` matrix of all p, and the norms Frobenius':
    the answers alone, which samples get like answers, and which classes are given together.

    Memory: for each temperature a (B, B) and a (K, K) tensor in float64 are kept for the backward pass, 40 MB in all
    at K = 1000 and a small batch.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)`` of the same classes in the same order, not differentiated.

    Returns:
        Scalar, at least 0.
    """
    own, other = widened(student), widened(teacher).detach()
    terms = [_levels(own, other, temperature) for temperature in TEMPERATURES]
    return sum(terms[1:], terms[0])


def _levels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The three levels at one temperature."""
    # products in float64, which autocast leaves alone, in the backward pass too
    own, other = (F.softmax(z / temperature, dim=1).double() for z in (student, teacher))
    batch = (own @ own.T - other @ other.T).square().sum() / own.shape[0]
    classes = (own.T @ own - other.T @ other).square().sum() / own.shape[1]
    instances = soft_divergence(student, teacher, temperature).mean()
    return instances + (batch + classes).to(student.dtype)


class MlkdLoss(ResponseLoss):
    """:func:`mlkd_loss` of the two networks' logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`mlkd_loss`."""
        return KnowledgeOutput(mlkd_loss(*self.logits(student, teacher)))
