"""Attention (AT): Zagoruyko & Komodakis: Paying More Attention to Attention. ICLR 2017, arXiv 1612.03928.

Differs: this is the authors' code, whose constant everybody uses, and not the paper's equation 2 (with p =
2): the channels' squares are averaged (the normalisation cancels it) and the squared difference is averaged
over batch and space, where the paper takes the norm of the difference. So the term falls as 1/(H W), and a
constant does not carry from one grid to another. Where grids differ, the attention *maps* are pooled to the
smaller grid and not the features, so that the teacher's map can be stored once for all students.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from naskd.knowledge.adapters import pool_to_smaller
from naskd.knowledge.base import Summary
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import scaled, widened, without_autocast
from naskd.nn.taps import Tap, Taps, as_map
from naskd.nn.torch_private import scale_all

_SHORTEST = 1e-12


def attention_map(features: Tensor) -> Tensor:
    """``mean_c F_c^2``: where a stage is active. ``(B, C, H, W)`` to ``(B, H, W)``."""
    return _squared_length(features) / features.shape[1]


def _squared_length(features: Tensor) -> Tensor:
    """``sum_c F_c^2``, ``(B, H, W)``."""
    found = _SquaredLength.apply(features)
    assert isinstance(found, Tensor)
    return found


class _SquaredLength(torch.autograd.Function):
    """In one pass over the features each way; autograd would write four tensors of their size."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        wide = torch.promote_types(features.dtype, torch.float32)
        with without_autocast(features.device.type):  # it would convert them in a pass of its own
            length: Tensor = torch.linalg.vector_norm(features, dim=1, dtype=wide)
        return length.square_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        features: Tensor = ctx.saved_tensors[0]
        return scaled(features, (2 * gradient)[:, None], features.dtype)


class _Differences(torch.autograd.Function):
    """``mean (x / |x| - t / |t|)^2`` of each of P pairs of vectors, with its gradient worked out at once.

    All pairs together: left to autograd, and pair by pair, these are some forty small operations a pair, each of which
    costs its launch.
    """

    @staticmethod
    def forward(ctx: Any, *vectors: Tensor) -> Tensor:
        """``(P,)`` of P batches of vectors ``(B, N_p)`` and then their targets, which get no gradient.

        What is shorter than 1e-12 is divided by that.
        """
        batch, sizes = len(vectors[0]), [vector.shape[1] for vector in vectors[: len(vectors) // 2]]
        both = torch.cat(vectors, dim=1).view(batch, 2, -1)
        lengths = [
            torch.linalg.vector_norm(part, dim=2, keepdim=True) for part in torch.split(both, sizes, dim=2)
        ]
        length = _spread(lengths, sizes).clamp_min_(_SHORTEST)
        turned, aim = (both / length).unbind(1)
        apart = turned - aim
        along = [part.sum(dim=1, keepdim=True) for part in torch.split(apart * turned, sizes, dim=1)]
        slope = torch.addcmul(apart, turned, _spread(along, sizes), value=-1).div_(length[:, 0])
        ctx.save_for_backward(slope)
        ctx.sizes = sizes
        return torch.stack([part.mean() for part in torch.split(apart.square(), sizes, dim=1)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        slope: Tensor = ctx.saved_tensors[0]
        factors = scale_all(gradient.unbind(), [2 / max(1, len(slope) * size) for size in ctx.sizes])
        found = slope * _spread([factor[None] for factor in factors], ctx.sizes)
        return *torch.split(found, ctx.sizes, dim=1), *[None] * len(ctx.sizes)


def _spread(parts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Parts ``(..., 1)`` beside each other, each as often as its size says."""
    return torch.cat([part.expand(*part.shape[:-1], n) for part, n in zip(parts, sizes, strict=True)], dim=-1)


def attention_losses(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """:func:`attention_loss` of each of P pairs, with one set of operations for all.

    Args:
        student: Attention maps, ``(B, H, W)`` each; their scale does not matter.
        teacher: As many, on grids of their own; the larger of a pair is pooled to the smaller.

    Returns:
        ``(P,)``, at least 0.
    """
    pairs = [pool_to_smaller(widened(s), widened(t)) for s, t in zip(student, teacher, strict=True)]
    own, targets = ([pair[i].flatten(1) for pair in pairs] for i in (0, 1))
    found = _Differences.apply(*own, *targets)
    assert isinstance(found, Tensor)
    return found


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean (N(vec A_s) - N(vec A_t))^2`` over batch and space, ``N(x) = x / |x|`` for each sample.

    An all-zero map stays zero. On a 1x1 grid every map is the same and the loss is 0.

    Args:
        student: Attention maps ``(B, H_s, W_s)``.
        teacher: Attention maps ``(B, H_t, W_t)``; the larger of the two is pooled to the smaller grid.

    Returns:
        Scalar in [0, 2 / (H W)].
    """
    return attention_losses([student], [teacher])[0]


class AttentionLoss(PairedLoss):
    """:func:`attention_loss` summed over the chosen pairs of stages.

    The summary is ``attention_<i>``, ``(B, H_t, W_t)`` in float32, the teacher's attention at its own grid: C times
    smaller than the stage.
    """

    key = "attention"

    def stage_summary(self, teacher: Tap) -> Tensor:
        """The attention map."""
        return attention_map(as_map(teacher).detach())

    def pair_terms(self, student: Taps, teacher: Summary) -> Tensor:
        """See :func:`attention_losses`."""
        # Of the student the sum over channels does as well as the mean, since its length is divided by.
        stages = {
            s: _squared_length(as_map(student.stages[s])) for s in dict.fromkeys(s for s, _ in self.pairs)
        }
        return attention_losses(
            [stages[s] for s, _ in self.pairs], [teacher[f"{self.key}_{t}"] for _, t in self.pairs]
        )
