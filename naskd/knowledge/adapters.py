"""What makes two maps comparable: tokens are laid out, sizes are pooled, channels pass a 1x1 convolution.

Adapters are trained with the student and thrown away with the teacher; they are never part of the student's
cost.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.precision import autocasts, mean_square, widened
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

    def mean_square(self, x: Tensor, target: Tensor) -> Tensor:
        """Mean of ``(r(x) - target)^2``, a scalar; `target` gets no gradient.

        On a CPU one operation, in 0.6 to 0.9 of the time of a convolution and a mean square (as measured by
        ``benchmarks/operators.py``): maps are large beside what is computed of them, and it goes over them half as
        often.

        Args:
            x: ``(B, C_s, H, W)``.
            target: ``(B, C_t, H, W)``, of any precision.
        """
        own = widened(x)
        fits = own.dtype == self.weight.dtype == torch.promote_types(own.dtype, target.dtype)
        in_rows = own.is_contiguous(memory_format=torch.channels_last)
        if fits and in_rows and x.device.type == "cpu" and not autocasts("cpu"):
            found: Tensor = _RegressedSquare.apply(own, self.weight, self.bias, target)
            return found
        return mean_square(self(x), widened(target))


class _RegressedSquare(torch.autograd.Function):
    """Matrix products over the places of all maps, which lie in rows. What is apart is all that is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
        rows, matrix = _rows(x), weight.flatten(1)
        apart = torch.addmm(bias, rows, matrix.T).sub_(_rows(target))
        ctx.save_for_backward(rows, matrix, apart)
        ctx.shapes = x.shape, weight.shape
        flat = apart.flatten()
        return torch.dot(flat, flat) / max(len(flat), 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        rows, matrix, apart = ctx.saved_tensors
        (batch, channels, height, width), weights = ctx.shapes
        slope = gradient * (2 / max(apart.numel(), 1))
        own = None
        if ctx.needs_input_grad[0]:
            own = (apart @ (matrix * slope)).view(batch, height, width, channels).permute(0, 3, 1, 2)
        return own, (apart.T @ rows).mul_(slope).view(weights), apart.sum(0).mul_(slope), None


def _rows(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` to ``(B H W, C)``: no copy in channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
