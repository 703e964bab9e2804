"""Review (ReviewKD): Chen, Liu, Zhao, Jia: Distilling Knowledge via Knowledge Review. CVPR 2021, arXiv 2104.09044.

A student stage is fused with all deeper ones before it is compared with its teacher stage.

Differs: no batch normalisation after the convolutions, so that a batch of one and 1x1 maps are defined. The authors
write down the grids and channels of each pair of networks; here stages are paired by grid and depth, whatever they are,
and where grids differ both maps are pooled to the smaller one *after* the 3x3 convolution (the authors resize the fused
map before it, up or down). Only stages take part, not the pooled features. The fusion has 64 channels whatever the
student's (the authors: those of its last stage, at most 512). The levels of the pyramid weigh as in the authors' code.
The term's weight does not grow over the first 20 epochs, as theirs does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter, pool_to_smaller
from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.pairing import pair_stages
from naskd.knowledge.precision import mean_square, widened
from naskd.nn.taps import Taps, TapShapes, as_map
from naskd.spec.design import KnowledgeTerm

_SIDES = (4, 2, 1)


def hcl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss: ``sum_l a_l mean (pool_l(R) - pool_l(F_t))^2 / sum_l a_l``.

    Over the whole grid, with ``a = 1``, and those of 4x4, 2x2 and 1x1 that are smaller than both of its sides, each
    with half the weight of the one before it.

    Args:
        student: ``(B, C, H, W)``, the fused map in the teacher's channels.
        teacher: ``(B, C, H, W)``, never differentiated.

    Returns:
        Scalar, at least 0.
    """
    own, target = widened(student), widened(teacher.detach())
    loss, weight, total = mean_square(own, target), 1.0, 1.0
    for side in _SIDES:
        if side < min(own.shape[-2:]):
            weight /= 2
            a, b = (F.adaptive_avg_pool2d(x, (side, side)) for x in (own, target))
            loss = loss + weight * mean_square(a, b)
            total += weight
    return loss / total


class Fusion(nn.Module):
    """Attention-based fusion of a student stage with the fused map of the deeper ones.

    ``r a + u b``, r the stage after a 1x1 convolution, u the deeper map on the stage's grid (nearest neighbour), a and
    b two maps in (0, 1) from a 1x1 convolution of both.

    Args:
        student: Channels of the stage.
        width: Channels of the fusion.
        teacher: Channels of the teacher's stage.
        deepest: There is no deeper map to fuse with.
    """

    def __init__(self, student: int, width: int, teacher: int, *, deepest: bool) -> None:
        super().__init__()
        self.reduce = ChannelAdapter(student, width)
        self.attend = None if deepest else nn.Conv2d(2 * width, 2, kernel_size=1)
        self.expand = nn.Conv2d(width, teacher, kernel_size=3, padding=1)

    def forward(self, features: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """``(B, C_s, H, W)`` and ``(B, width, h, w)`` to ``(B, C_t, H, W)`` and ``(B, width, H, W)``.

        The first is compared with the teacher, the second goes on to the next shallower stage.
        """
        fused = self.reduce(features)
        if self.attend is not None:
            assert deeper is not None
            enlarged = F.interpolate(deeper, size=fused.shape[-2:], mode="nearest")
            attention = self.attend(torch.cat([fused, enlarged], dim=1)).sigmoid()
            fused = fused * attention[:, :1] + enlarged * attention[:, 1:]
        return self.expand(fused), fused


class ReviewLoss(KnowledgeLoss):
    """:func:`hcl_loss` summed over the student's stages, each fused with all deeper ones.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``, the teacher's map at its own grid.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.pairs = pair_stages(student, teacher, "all")
        width = int(self.card.option(term, "width"))
        last = len(self.pairs) - 1
        self.fusions = nn.ModuleList(
            Fusion(student.stages[s].channels, width, teacher.stages[t].channels, deepest=s == last)
            for s, t in self.pairs
        )

    def summarise(self, teacher: Taps) -> Summary:
        """The maps of each teacher stage of a pair."""
        return {f"stage_{t}": as_map(teacher.stages[t]).detach() for _, t in self.pairs}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """All stages."""
        return tuple(tap.tensor for tap in student.stages)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """From the deepest stage to the shallowest; see the class."""
        terms: list[Tensor] = []
        fused: Tensor | None = None
        for (s, t), fusion in zip(reversed(self.pairs), reversed(self.fusions), strict=True):
            reviewed, fused = fusion(widened(as_map(student.stages[s])), fused)
            terms.append(hcl_loss(*pool_to_smaller(widened(reviewed), widened(teacher[f"stage_{t}"]))))
        return KnowledgeOutput(sum(terms[1:], terms[0]))
