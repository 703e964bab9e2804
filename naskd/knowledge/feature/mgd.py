"""Masked generative distillation (MGD).

Yang, Li, Shao, Shi, Yuan, Yuan: Masked Generative Distillation. ECCV 2022, arXiv 2205.01529.

From a student's map with holes in it the teacher's whole map shall be told, so that each place has to know of its
surroundings.

Differs: places are hidden, all channels of them, as in the paper (authors' code for classification: whole channels).
The square is averaged over all elements and not summed, so that a weight carries from one stage to another. The map
always passes a 1x1 convolution (authors' code: only where the channels differ in number). Outside of training
nothing is drawn: all places are multiplied by the share that training shows, as in dropout (Srivastava et al., JMLR
2014), since the generator has learned from inputs of that mean. Grids of any two sizes are pooled to the smaller one.
"""

import torch
from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter, pool_to_smaller
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import mean_square, widened
from naskd.nn.taps import Tap, TapShape, as_map


def mgd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean (G(M r(F_s)) - F_t)^2`` over batch, channels and space.

    Args:
        student: ``(B, C, H, W)``, what the generator told.
        teacher: ``(B, C, H, W)``, never differentiated.

    Returns:
        Scalar, at least 0.
    """
    return mean_square(widened(student), widened(teacher.detach()))


class Generator(nn.Module):
    """``G(M r(F))``, ``(B, C_s, H, W)`` to ``(B, C_t, H, W)``: two 3x3 convolutions with a ReLU between.

    In training a mask is drawn for each sample with torch's generator, one value a place.

    Args:
        student: Channels of the student's map.
        teacher: Channels of the teacher's map.
        masked: Share of places that are hidden, in [0, 1).
    """

    def __init__(self, student: int, teacher: int, masked: float) -> None:
        super().__init__()
        self.masked = masked
        self.align = ChannelAdapter(student, teacher)
        self.generate = nn.Sequential(
            nn.Conv2d(teacher, teacher, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(teacher, teacher, kernel_size=3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """The teacher's map as it is told from the student's."""
        aligned = self.align(features)
        shown: Tensor | float = 1 - self.masked
        if self.training:
            batch, _, height, width = aligned.shape
            shown = torch.rand(batch, 1, height, width, device=aligned.device) >= self.masked
        told: Tensor = self.generate(aligned * shown)
        return told


class MgdLoss(PairedLoss):
    """:func:`mgd_loss` summed over the chosen pairs of stages.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``.
    """

    def pair_adapter(self, student: TapShape, teacher: TapShape) -> nn.Module:
        """Alignment, mask and generator."""
        masked = float(self.card.option(self.settings, "masked"))
        return Generator(student.channels, teacher.channels, masked)

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`mgd_loss`."""
        own, target = pool_to_smaller(widened(as_map(student)), widened(teacher))
        return mgd_loss(adapter(own), target)
