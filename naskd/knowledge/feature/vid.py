"""Variational information distillation (VID).

Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation for Knowledge Transfer. CVPR 2019, arXiv
1904.05835.

A lower bound of the information that the student's stage has of the teacher's: how likely the teacher's values are, to
somebody who sees the student's.

Differs: the constant ``log(2 pi) / 2`` is left out and the sum over elements is a mean, as in all public code. The
variance of a channel, ``softplus(r) + 1e-5``, is trained with the student (mdistiller leaves it out of the optimizer,
which makes of the method a hint). The convolutions have biases (RepDistiller: none), since what comes out of a ReLU
has a mean. Grids of any two sizes are pooled to the smaller one, before the convolutions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.knowledge.adapters import pool_to_smaller
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import widened
from naskd.nn.taps import Tap, TapShape, as_map

_LEAST_VARIANCE = 1e-5


def vid_loss(student: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """``mean [(mu(F_s) - F_t)^2 / v_c + log v_c] / 2`` over batch, channels and space.

    For given means it is smallest where ``v_c`` is the mean squared error of the channel.

    Args:
        student: ``mu(F_s)``, ``(B, C, H, W)``.
        teacher: ``(B, C, H, W)``, never differentiated.
        variance: ``v_c > 0``, ``(C,)``.

    Returns:
        Scalar of either sign, at least ``mean_c log(v_c) / 2``.
    """
    v = widened(variance)[:, None, None]
    squares = (widened(student) - widened(teacher.detach())).square()
    return (squares / v + v.log()).mean() / 2


class Expectation(nn.Module):
    """What the student's stage makes expect of the teacher's: a mean for each element, a variance for each channel.

    Args:
        student: Channels of the student's map.
        teacher: Channels of the teacher's map, and between the convolutions.
        variance: At the start, above 1e-5.
    """

    def __init__(self, student: int, teacher: int, variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(student, teacher, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(teacher, teacher, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(teacher, teacher, kernel_size=1),
        )
        # the inverse of softplus, written so that exp overflows for no variance
        start = variance - _LEAST_VARIANCE
        self.raw_variance = nn.Parameter(torch.full((teacher,), start + math.log(-math.expm1(-start))))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C_s, H, W)`` to mean ``(B, C_t, H, W)`` and variance ``(C_t,)``."""
        return self.mean(features), F.softplus(self.raw_variance) + _LEAST_VARIANCE


class VidLoss(PairedLoss):
    """:func:`vid_loss` summed over the chosen pairs of stages.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``.
    """

    def pair_adapter(self, student: TapShape, teacher: TapShape) -> nn.Module:
        """Mean and variance."""
        variance = float(self.card.option(self.settings, "variance"))
        return Expectation(student.channels, teacher.channels, variance)

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`vid_loss`."""
        own, target = pool_to_smaller(widened(as_map(student)), widened(teacher))
        mean, variance = adapter(own)
        return vid_loss(mean, target, variance)
