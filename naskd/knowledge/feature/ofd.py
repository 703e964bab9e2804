"""Overhaul of feature distillation (OFD).

Heo, Kim, Yun, Park, Kwak, Choi: A Comprehensive Overhaul of Feature Distillation. ICCV 2019, arXiv 1904.01866.

The student learns the teacher's values before the activation; of what the teacher's activation would discard, only
that it is negative, by the margin that is usual in its channel.

Differs: the margin is the conditional mean everywhere. The authors' code puts -3 deviations for a channel that is
negative less than once in a thousand times, where the conditional mean is above -0.3 deviations: a channel that is
hardly ever negative would get the largest margin of all. The adapter is a 1x1 convolution without batch
normalisation. The teacher is in evaluation mode (authors' code: it normalises by the batch). Grids of any two sizes
are pooled to the smaller one before the margin is applied. Summed over channels and places, averaged over the batch
and halved from each stage to the one before it, as in the authors' code: the term grows as ``C H W``.
"""

import math

import torch
from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter, pool_to_smaller
from naskd.knowledge.base import NOTHING_MORE, LossInputs, TeacherParts
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import widened
from naskd.nn.taps import Tap, TapShape, TapShapes, as_map
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError

_TINY = 1e-200


def negative_mean(shift: Tensor, scale: Tensor) -> Tensor:
    """``m = E[x | x < 0]`` of x normal with mean ``beta`` and deviation ``|gamma|``.

    ``m = beta - |gamma| phi(r) / Phi(-r)``, ``r = beta / |gamma|``, by the scaled complementary error function, which
    does not underflow for large r, and in float64, since the difference loses ``2 log10 r`` digits there: 8 at r = 1e4.

    Args:
        shift: ``beta``, ``(C,)``.
        scale: ``gamma``, ``(C,)``, of either sign; where it is 0, x is beta and ``m = min(beta, 0)``.

    Returns:
        ``(C,)``, at most 0, in float32 at least.
    """
    wide = widened(shift)
    beta, gamma = wide.double(), scale.double().abs()
    ratio = beta / gamma.clamp_min(_TINY)
    mean: Tensor = beta - gamma * math.sqrt(2 / math.pi) / torch.special.erfcx(ratio / math.sqrt(2))
    return mean.clamp_max(0).to(wide.dtype)


def ofd_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """``(1/B) sum (s - t')^2 where s > t' or t' > 0``, ``t' = max(t, m_c)``.

    Where the teacher is inactive (``t' <= 0``), a student that is below it already is left alone.

    Args:
        student: Values before the activation, after the adapter, ``(B, C, H, W)``.
        teacher: Likewise, of the same shape, never differentiated.
        margin: ``m_c``, ``(C,)``, at most 0; see :func:`negative_mean`.

    Returns:
        Scalar, at least 0.
    """
    own = widened(student)
    target = torch.maximum(widened(teacher.detach()), margin[:, None, None])
    taught = (own > target) | (target > 0)
    return ((own - target).square() * taught).sum() / len(own)


class OfdLoss(PairedLoss):
    """``2^-(P - 1 - i)`` :func:`ofd_loss`, summed over the chosen P pairs of stages, of which i counts from 0.

    The summary is ``pre_activation_<i>``, ``(B, C_t, H_t, W_t)``; the margins are the teacher's whatever the batch.

    Raises:
        InputError: The teacher's stage of a pair has no batch normalisation right before its activation.
    """

    key = "pre_activation"
    field = "pre_activations"

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        chosen = dict.fromkeys(t for _, t in self.pairs)
        norms = {t: norm for t, norm in enumerate(given.parts.norms) if norm is not None}
        if missing := [t for t in chosen if t not in norms]:
            stages = ", ".join(str(t) for t in missing)
            raise InputError(
                f"knowledge {term.kind!r} needs the BatchNorm before the last activation of the teacher's stage "
                f"{stages} (from 0), and this teacher shows none; choose other pairs, or 'hint', or 'ab', which asks "
                "for the side of the boundary alone"
            )
        for t in chosen:
            self.register_buffer(f"margin_{t}", negative_mean(*norms[t]))

    @torch.no_grad()
    def renew(self, parts: TeacherParts) -> None:
        """The margins of the teacher's normalisation as it is now."""
        for t in dict.fromkeys(t for _, t in self.pairs):
            norm = parts.norms[t]
            assert norm is not None
            self.get_buffer(f"margin_{t}").copy_(negative_mean(*norm))

    def pair_adapter(self, student: TapShape, teacher: TapShape) -> nn.Module:
        """The connector."""
        return ChannelAdapter(student.channels, teacher.channels)

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`ofd_loss`."""
        own, target = pool_to_smaller(widened(as_map(student)), widened(teacher))
        margin = self.get_buffer(f"margin_{pair[1]}")
        return self.depth_weight(pair) * ofd_loss(adapter(own), target, margin)
