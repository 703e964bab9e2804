"""KD-SVD: Lee, Kim, Song: Self-supervised Knowledge Distillation Using Singular Value Decomposition. ECCV 2018.

Differs: the student's i-th vector answers the teacher's i-th, with its sign. The authors take k + 3 of the student's
and, for each of the teacher's, the nearest of these, a choice that jumps in the course of the training. They, and all
public code, need a student as wide as its teacher; here a 1x1 convolution stands between. Their small constants beside
the norms are left out. Rows are places and columns channels, as in the paper and RepDistiller (mdistiller: C H rows of
W). The gradient is held back where singular values are equal, see
:mod:`naskd.knowledge.relation.singular`; the authors clip it to the size of that of the labels, for which
``weighting = "balanced"`` stands here.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from naskd.knowledge.base import NOTHING_MORE, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.precision import widened
from naskd.knowledge.relation.singular import SingularLoss
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm


def correlation(front: Tensor, back: Tensor) -> Tensor:
    """``R_pqi = exp(-(x_pi - y_qi)^2 / 8)``, in [exp(-1/2), 1] for vectors of length 1.

    Args:
        front: ``(B, C, k)``.
        back: ``(B, C', k)``.

    Returns:
        ``(B, C, C', k)``.
    """
    gaps = widened(front)[:, :, None] - widened(back)[:, None]
    return (gaps.square() / -8).exp()


def svd_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """``sum_l (1/B) sum_b sum_pqi (R_s - R_t)^2``, R the :func:`correlation` of the vectors of stages l and l + 1.

    Memory: some five (B, C_l, C_(l+1), k), each 64 MiB in float32 at B = 64, k = 1 and 512 channels.

    Args:
        student: Of each stage ``(B, C_l, k)``, with the signs of the teacher's.
        teacher: Of each stage ``(B, C_l, k)``, never differentiated.

    Returns:
        Scalar, at least 0.
    """
    terms = [
        (correlation(*own) - correlation(*(x.detach() for x in other))).square().sum() / len(own[0])
        for own, other in zip(pairwise(student), pairwise(teacher), strict=True)
    ]
    return sum(terms[1:], terms[0])


class SvdLoss(SingularLoss):
    """:func:`svd_loss` of the first k singular vectors of the stages."""

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.k = int(self.card.option(term, "k"))

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`svd_loss`."""
        other = self.teacher_vectors(teacher, self.k)
        return KnowledgeOutput(svd_loss(self.student_vectors(student, other), other))
