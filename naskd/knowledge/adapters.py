"""What makes two maps comparable: tokens are laid out, sizes are pooled, channels pass a 1x1 convolution.

Adapters are trained with the student and thrown away with the teacher; they are never part of the student's
cost.
"""

import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.precision import autocasts, widened
from naskd.nn.layout import spatial_mean
from naskd.nn.pointwise import PointwiseConv
from naskd.nn.taps import Tap


def tap_mean(tap: Tap) -> Tensor:
    """``(B, C)``, a tap averaged over its places or its tokens, in float32 at least."""
    tensor = widened(tap.tensor)
    return spatial_mean(tensor) if tap.layout == "map" else tensor.mean(1)


def pool_to_smaller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps on the smaller of the two grids, by adaptive average pooling; nothing is ever enlarged.

    Args:
        a: ``(B, H_a, W_a)`` or ``(B, C, H_a, W_a)``.
        b: ``(B, H_b, W_b)`` or ``(B, C, H_b, W_b)``.

    Returns:
        Two tensors that end in ``(min(H_a, H_b), min(W_a, W_b))``; what had to be pooled in float32 at least.
    """
    grid = (min(a.shape[-2], b.shape[-2]), min(a.shape[-1], b.shape[-1]))
    return _pool(a, grid), _pool(b, grid)


def _pool(x: Tensor, grid: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[-2:]) == grid else F.adaptive_avg_pool2d(widened(x), grid)


class ChannelAdapter(PointwiseConv):
    """A 1x1 convolution with bias, ``(B, C_s, H, W)`` to ``(B, C_t, H, W)``.

    It follows autocast like the student's own layers.

    Args:
        student: Channels of the student's map, ``C_s``.
        teacher: Channels of the teacher's map, ``C_t``.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__(student, teacher)

    def forward(self, x: Tensor) -> Tensor:
        """See the class; in float32 at least where nothing narrows it."""
        return super().forward(x if autocasts(x.device.type) else widened(x))
