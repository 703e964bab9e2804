"""Logit matching: Ba, Caruana: Do Deep Nets Really Need to be Deep? NeurIPS 2014, arXiv 1312.6184, equation 2.

Differs: the square is averaged over classes, as in later comparisons, where the paper takes half its sum. A constant
added to one side's logits counts, though it changes no answer; with ``standardize`` it does not.
"""

from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss
from naskd.knowledge.precision import mean_square, widened
from naskd.nn.taps import Taps


def logit_mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean_bk (z_s - z_t)^2``.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)`` of the same classes in the same order, not differentiated.

    Returns:
        Scalar, at least 0.
    """
    return mean_square(widened(student), widened(teacher).detach())


class LogitMseLoss(ResponseLoss):
    """:func:`logit_mse_loss` of the two networks' logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`logit_mse_loss`."""
        return KnowledgeOutput(logit_mse_loss(*self.logits(student, teacher)))
