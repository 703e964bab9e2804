"""Attention (AT): Zagoruyko & Komodakis: Paying More Attention to Attention. ICLR 2017, arXiv 1612.03928.

Differs: this is the authors' code, whose constant everybody uses, and not the paper's equation 2 (with p =
2): the channels' squares are averaged (the normalisation cancels it) and the squared difference is averaged
over batch and space, where the paper takes the norm of the difference. So the term falls as 1/(H W), and a
constant does not carry from one grid to another. Where grids differ, the attention *maps* are pooled to the
smaller grid and not the features, so that the teacher's map can be stored once for all students.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.knowledge.adapters import pool_to_smaller
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import widened
from naskd.taps import Tap, as_map

_SHORTEST = 1e-12


def attention_map(features: Tensor) -> Tensor:
    """``mean_c F_c^2``: where a stage is active. ``(B, C, H, W)`` to ``(B, H, W)``."""
    found = _AttentionMap.apply(features)
    assert isinstance(found, Tensor)
    return found


class _AttentionMap(torch.autograd.Function):
    """With its gradient ``2 F_c / C`` in one pass: autograd would write three tensors of the size of the features."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return widened(features).square().mean(dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        features: Tensor = ctx.saved_tensors[0]
        return ((gradient * (2 / features.shape[1]))[:, None] * features).to(features.dtype)


class _Difference(torch.autograd.Function):
    """``mean (x / |x| - t)^2`` of vectors, with its gradient worked out at once.

    Left to autograd, the some forty small operations of a pair take longer than those of a digits student's layer.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
        """Of ``(B, N)`` and ``(B, N)``; vectors shorter than 1e-12 are divided by that."""
        length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min_(_SHORTEST)
        turned = x / length
        apart = turned - target
        slope = apart * (2 / apart.numel())
        slope -= turned * (slope * turned).sum(dim=1, keepdim=True)
        ctx.save_for_backward(slope.div_(length))
        return apart.square().mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        slope: Tensor = ctx.saved_tensors[0]
        return gradient * slope, None


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean (N(vec A_s) - N(vec A_t))^2`` over batch and space, ``N(x) = x / |x|`` for each sample.

    An all-zero map stays zero. On a 1x1 grid every map is the same and the loss is 0.

    Args:
        student: Attention maps ``(B, H_s, W_s)``.
        teacher: Attention maps ``(B, H_t, W_t)``; the larger of the two is pooled to the smaller grid.

    Returns:
        Scalar in [0, 2 / (H W)].
    """
    own, target = pool_to_smaller(widened(student), widened(teacher))
    term = _Difference.apply(own.flatten(1), F.normalize(target.flatten(1), dim=1))
    assert isinstance(term, Tensor)
    return term


class AttentionLoss(PairedLoss):
    """:func:`attention_loss` summed over the chosen pairs of stages.

    The summary is ``attention_<i>``, ``(B, H_t, W_t)`` in float32, the teacher's attention at its own grid: C times
    smaller than the stage.
    """

    key = "attention"

    def stage_summary(self, teacher: Tap) -> Tensor:
        """The attention map."""
        return attention_map(as_map(teacher).detach())

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`attention_loss`."""
        return attention_loss(attention_map(as_map(student)), teacher)
