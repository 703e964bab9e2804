"""CC: Peng et al.: Correlation Congruence for Knowledge Distillation. ICCV 2019, arXiv 1904.01802.

Differs: three public implementations are three different losses. Ours is the paper's: squared differences of the
Gaussian kernels of all pairs, as a Taylor series. RepDistiller multiplies the differences of neighbours in the batch,
so that the order of the samples matters and a batch of one is NaN; torchdistill has a third. The kernel is of
the pooled features themselves, divided by their length: the paper embeds both networks' into 128 numbers first, which
the kernel does not need. The classes of a batch are not drawn in a special way. The paper's term on single samples is
the loss ``logits``, to be named beside this one.
"""

import math

from torch import Tensor

from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.precision import mean_square, widened
from naskd.knowledge.relation.similarity import cosines
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm


def cc_loss(student: Tensor, teacher: Tensor, gamma: float = 0.4, order: int = 2) -> Tensor:
    """``mean_ij (K(f_s)_ij - K(f_t)_ij)^2``, K as of :func:`gaussian_kernel`.

    Args:
        student: ``(B, D_s)``.
        teacher: ``(B, D_t)``, never differentiated; the two numbers of features may differ.
        gamma: Of the kernel, above 0: the larger, the nearer two samples must be to count as alike.
        order: Highest power of the series, at least 1.

    Returns:
        Scalar, at least 0.
    """
    own, target = gaussian_kernel(student, gamma, order), gaussian_kernel(teacher.detach(), gamma, order)
    return mean_square(own, target).to(widened(student).dtype)


def gaussian_kernel(features: Tensor, gamma: float, order: int) -> Tensor:
    """``exp(-2 gamma) sum_(p = 0 to order) (2 gamma)^p / p! (N(f_i) . N(f_j))^p``, ``N(x) = x / |x|``.

    The beginning of the Taylor series of ``exp(-gamma |N(f_i) - N(f_j)|^2)``. ``(B, D)`` to ``(B, B)`` in float64.
    """
    similarity = cosines(features)
    series = [(2 * gamma) ** p / math.factorial(p) * similarity**p for p in range(order + 1)]
    return math.exp(-2 * gamma) * sum(series[1:], series[0])


class CcLoss(KnowledgeLoss):
    """:func:`cc_loss` of the pooled features; the summary is ``pooled``, ``(B, D_t)``."""

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.gamma = float(self.card.option(term, "gamma"))
        self.order = int(self.card.option(term, "order"))

    def summarise(self, teacher: Taps) -> Summary:
        """What the teacher's classifier sees."""
        return {"pooled": teacher.pooled.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """What the student's classifier sees."""
        return (student.pooled,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`cc_loss`."""
        return KnowledgeOutput(cc_loss(student.pooled, teacher["pooled"], self.gamma, self.order))
