"""Hint (FitNets): Romero et al.: FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv 1412.6550.

Differs: trained beside the cross-entropy and not in a stage before it, as in all later comparisons. The
regressor is a 1x1 convolution, not the paper's larger kernel, and nothing follows it (RepDistiller: batch
normalisation and ReLU): it can then reach the teacher's post-activation values, is defined for a batch of one
and for 1x1 maps, and commutes with pooling. Grids of any two sizes are pooled to the smaller one. The square
is averaged over all elements (paper: half their sum).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from naskd.config import KnowledgeTerm
from naskd.knowledge.adapters import ChannelAdapter, as_map, pool_to_smaller
from naskd.knowledge.base import KnowledgeLoss, KnowledgeOutput, Summary
from naskd.knowledge.pairing import pair_stages
from naskd.knowledge.precision import widened
from naskd.taps import Taps, TapShapes


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean (r(F_s) - F_t)^2`` over batch, channels and space.

    Args:
        student: ``(B, C, H, W)``, the student's map after its regressor.
        teacher: ``(B, C, H, W)``.

    Returns:
        Scalar, at least 0.
    """
    return F.mse_loss(widened(student), widened(teacher))


class HintLoss(KnowledgeLoss):
    """:func:`hint_loss` summed over the chosen pairs of stages.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``, the teacher's map at its own grid, for each teacher
    stage of a pair.
    """

    def __init__(self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes) -> None:
        super().__init__(term, student, teacher)
        self.pairs = pair_stages(student, teacher, term.pairs)
        self.adapters = nn.ModuleList(
            ChannelAdapter(student.stages[s].channels, teacher.stages[t].channels) for s, t in self.pairs
        )

    def summarise(self, teacher: Taps) -> Summary:
        """The teacher's maps, after the activation."""
        return {f"stage_{t}": as_map(teacher.stages[t]).detach() for _, t in self.pairs}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's stages that are taught."""
        return tuple(student.stages[s].tensor for s, _ in self.pairs)

    def forward(self, student: Taps, teacher: Summary, labels: Tensor, index: Tensor) -> KnowledgeOutput:
        """See :func:`hint_loss`."""
        terms = []
        for (s, t), adapter in zip(self.pairs, self.adapters, strict=True):
            # pooled before the convolution, with which it commutes, since the smaller map is cheaper
            own, target = pool_to_smaller(widened(as_map(student.stages[s])), widened(teacher[f"stage_{t}"]))
            terms.append(hint_loss(adapter(own), target))
        return KnowledgeOutput(sum(terms[1:], terms[0]))
