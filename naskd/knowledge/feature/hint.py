"""Hint (FitNets): Romero et al.: FitNets: Hints for Thin Deep Nets. ICLR 2015, arXiv 1412.6550.

Differs: trained beside the cross-entropy and not in a stage before it, as in all later comparisons. The
regressor is a 1x1 convolution, not the paper's larger kernel, and nothing follows it (RepDistiller: batch
normalisation and ReLU): it can then reach the teacher's post-activation values, is defined for a batch of one
and for 1x1 maps, and commutes with pooling. Grids of any two sizes are pooled to the smaller one. The square
is averaged over all elements (paper: half their sum).
"""

from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter, pool_to_smaller
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import mean_square, widened
from naskd.nn.taps import Tap, TapShape, as_map


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean (r(F_s) - F_t)^2`` over batch, channels and space.

    Args:
        student: ``(B, C, H, W)``, the student's map after its regressor.
        teacher: ``(B, C, H, W)``.

    Returns:
        Scalar, at least 0.
    """
    return mean_square(student, widened(teacher))


class HintLoss(PairedLoss):
    """:func:`hint_loss` summed over the chosen pairs of stages.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``, the teacher's map after its activation at its own grid.
    """

    def pair_adapter(self, student: TapShape, teacher: TapShape) -> ChannelAdapter:
        """The regressor."""
        return ChannelAdapter(student.channels, teacher.channels)

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`hint_loss`."""
        # pooled before the convolution, with which it commutes, since the smaller map is cheaper
        own, target = pool_to_smaller(as_map(student), teacher)
        assert isinstance(adapter, ChannelAdapter)
        return adapter.mean_square(own, target)
