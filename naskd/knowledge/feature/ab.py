"""Activation boundaries (AB).

Heo, Lee, Yun, Choi: Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons. AAAI 2019,
arXiv 1811.03233.

The student learns which neurons of the teacher are active, not how much, in an initial stage without labels.

Differs: the adapter is a 1x1 convolution without the authors' batch normalisation. A stage that ends without an
activation is taken as it is. Grids of any two sizes are pooled to the smaller one, the teacher's before its boundary
is drawn. The scale is that of the authors' code: summed over channels and places, averaged over the batch, times
3/1000 and halved from each stage to the one before it; public code without 3/1000, or with a mean, differs by factors
of hundreds. So the term grows as ``C H W``.
"""

import torch
from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter, pool_to_smaller
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import widened
from naskd.nn.taps import Tap, TapShape, as_map

_SCALE = 3 / 1000


def ab_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """``(1/B) sum [(s + m)^2 where s > -m and t <= 0] + [(s - m)^2 where s <= m and t > 0]``.

    The hinge's derivative at its corner is 0 from both sides, so that the loss is smooth in the student. It is 0 where
    all neurons are on the teacher's side of the boundary, by at least the margin.

    Args:
        student: Values before the activation, after the adapter, ``(B, C, H, W)``.
        teacher: Likewise, of the same shape, never differentiated; only its sign matters, 0 being inactive.
        margin: ``m``, at least 0.

    Returns:
        Scalar, at least 0.
    """
    own = widened(student)
    towards = torch.where(teacher.detach() > 0, margin - own, own + margin)
    return towards.relu().square().sum() / len(own)


class AbLoss(PairedLoss):
    """``2^-(P - 1 - i) 3/1000`` :func:`ab_loss`, summed over the chosen P pairs of stages, of which i counts from 0.

    The summary is ``pre_activation_<i>``, ``(B, C_t, H_t, W_t)``; signs alone could not be pooled.
    """

    key = "pre_activation"
    field = "pre_activations"

    def pair_adapter(self, student: TapShape, teacher: TapShape) -> nn.Module:
        """The connector."""
        return ChannelAdapter(student.channels, teacher.channels)

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`ab_loss`."""
        margin = float(self.card.option(self.settings, "margin"))
        own, target = pool_to_smaller(widened(as_map(student)), widened(teacher))
        return self.depth_weight(pair) * _SCALE * ab_loss(adapter(own), target, margin)
