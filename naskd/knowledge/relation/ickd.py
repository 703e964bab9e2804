"""Inter-channel correlation (ICKD).

Liu, Huang, Lin, Xie, Wang, Chang, Liang: Exploring Inter-Channel Correlation for Diversity-preserved Knowledge
Distillation. ICCV 2021, arXiv 2202.03680.

Which channels say the same, and which say something else.

Differs: correlations are cosines between channels, so that neither network's scale matters. The paper has inner
products; the authors' code for CIFAR brings the rows of their matrix to length 1, and divides by ``C`` where we divide
by ``C^2``, so that the published weight belongs to another scale. The adapter is a 1x1 convolution without the authors'
batch normalisation. The paper's variant on a grid of patches, for dense prediction, is not here.

Memory: ``B C_t^2`` numbers for each network, 64 MiB for B = 64 and 512 channels in float32. The teacher's Gram
matrices are smaller than its maps where it has fewer channels than places.
"""

from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import mean_square, product, unit, widened
from naskd.nn.taps import Tap, TapShape, as_map


def channel_gram(features: Tensor) -> Tensor:
    """``G_cd = N(F_c) . N(F_d)``, channels as vectors over space of length 1; ``(B, C, H, W)`` to ``(B, C, C)``.

    A dead channel has the cosine 0 with every other and with itself.
    """
    channels = unit(widened(features).flatten(2), dim=2)
    return product(channels, channels.mT)


def ickd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``(1/B) sum_b |G_s - G_t|_F^2 / C^2``.

    Grids may differ, since none is left in a Gram matrix.

    Args:
        student: Maps ``(B, C, H, W)`` after the adapter.
        teacher: Gram matrices ``(B, C, C)``, never differentiated; see :func:`channel_gram`.

    Returns:
        Scalar in [0, 4].
    """
    return mean_square(channel_gram(student), widened(teacher.detach()))


class IckdLoss(PairedLoss):
    """:func:`ickd_loss` summed over the chosen pairs of stages.

    The summary is ``channel_gram_<i>``, ``(B, C_t, C_t)`` in float32.
    """

    key = "channel_gram"

    def pair_adapter(self, student: TapShape, teacher: TapShape) -> nn.Module:
        """To the teacher's channels."""
        return ChannelAdapter(student.channels, teacher.channels)

    def stage_summary(self, teacher: Tap) -> Tensor:
        """The Gram matrix."""
        return channel_gram(as_map(teacher).detach())

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`ickd_loss`."""
        return ickd_loss(adapter(widened(as_map(student))), teacher)
