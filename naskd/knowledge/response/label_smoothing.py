"""Label smoothing: Szegedy et al.: Rethinking the Inception Architecture. CVPR 2016, arXiv 1512.00567, section 7.

A teacher that always answers the uniform distribution. Mueller, Kornblith, Hinton (NeurIPS 2019, arXiv 1906.02629)
found that a network trained so is better itself, and a worse teacher.

Differs: ``epsilon / K`` for every class, the label included, as in the paper and in torch; the code of Tf-KD (Yuan et
al., arXiv 1909.11723) gives ``epsilon / (K - 1)`` to the others and ``1 - epsilon`` to the label.
"""

import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps


def label_smoothing_loss(
    student: Tensor, epsilon: float, lesson: Lesson | None = None
) -> tuple[Tensor, Tensor]:
    """``-(epsilon / K) (1/B) sum_bk log softmax(z_s)_k`` and ``1 - epsilon``.

    The two together are the cross-entropy with ``(1 - epsilon) [k = y] + epsilon / K``.

    Args:
        student: Logits ``(B, K)``.
        epsilon: Share of the label that is spread over all classes, in [0, 1].
        lesson: Which images have a label, what they count by their class, and among which classes labels are told
            apart; see :meth:`~naskd.knowledge.base.Lesson.even_loss`. None: all, the same, and all.

    Returns:
        Scalar, at least ``epsilon log K``, and the weights ``(B,)`` of each sample's cross-entropy with the label.
    """
    own = widened(student)
    even = -F.log_softmax(own, dim=1).mean() if lesson is None else lesson.even_loss(own)
    return epsilon * even, own.new_full((len(student),), 1 - epsilon)


class LabelSmoothingLoss(ResponseLoss):
    """:func:`label_smoothing_loss` of the student's logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`label_smoothing_loss`."""
        epsilon = float(self.card.option(self.settings, "epsilon"))
        return KnowledgeOutput(*label_smoothing_loss(student.logits, epsilon, lesson))
