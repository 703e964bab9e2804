"""FSP: Yim, Joo, Bae, Kim: A Gift from Knowledge Distillation. CVPR 2017.

The teacher's flow teaches the student alone, before the labels do, as in the paper.

Differs: a flow goes from a stage to the next (RepDistiller, KD-Zoo), where the paper takes the first and the last layer
of each stage, which have one grid; grids are pooled to the smaller one (the paper takes maxima). The square is averaged
over the matrix, as in both of these; the paper and torchdistill sum it, which makes the term C_a C_b times larger. The
paper and all public code need a student as wide as its teacher; here a 1x1 convolution stands between, and always, so
that a width that happens to be the teacher's is not taught otherwise.
"""

from itertools import pairwise

from torch import Tensor

from naskd.knowledge.adapters import pool_to_smaller
from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.precision import mean_square, product, widened
from naskd.knowledge.relation.flow import FlowLoss
from naskd.nn.taps import Taps, as_map


def fsp_matrix(a: Tensor, b: Tensor) -> Tensor:
    """``G_cd = mean_hw a_c b_d``: what flows from one stage to another, wherever it is.

    Args:
        a: ``(B, C_a, H, W)``.
        b: ``(B, C_b, H', W')``; the larger of the two grids is pooled to the smaller.

    Returns:
        ``(B, C_a, C_b)``: 32 MiB in float32 at B = 64, C_a = 256 and C_b = 512.
    """
    a, b = pool_to_smaller(widened(a), widened(b))
    a, b = a.flatten(2), b.flatten(2)
    return product(a, b.mT) / a.shape[2]


def fsp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean_bcd (G_s - G_t)^2`` of one flow.

    Args:
        student: ``(B, C_a, C_b)``.
        teacher: ``(B, C_a, C_b)``, never differentiated.

    Returns:
        Scalar, at least 0.
    """
    return mean_square(widened(student), widened(teacher.detach()))


class FspLoss(FlowLoss):
    """:func:`fsp_loss` summed over the flows.

    The summary is ``fsp_<a>_<b>``, ``(B, C_a, C_b)`` in float32, the teacher's flow from stage a to stage b at its own
    grids.
    """

    def summarise(self, teacher: Taps) -> Summary:
        """Of each flow."""
        return {
            f"fsp_{a}_{b}": fsp_matrix(as_map(teacher.stages[a]), as_map(teacher.stages[b])).detach()
            for a, b in pairwise(self.teacher_stages)
        }

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`fsp_loss`."""
        terms = [
            fsp_loss(fsp_matrix(*own), teacher[f"fsp_{a}_{b}"])
            for own, (a, b) in zip(
                pairwise(self.adapted(student)), pairwise(self.teacher_stages), strict=True
            )
        ]
        return KnowledgeOutput(sum(terms[1:], terms[0]))
