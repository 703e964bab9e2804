"""Neuron selectivity transfer (NST).

Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer. 2017, arXiv 1707.01219.

Each channel is a sample: where it is active. The two networks' samples shall have one distribution, by the squared
maximum mean discrepancy with the kernel ``(x . y)^2``.

Differs: of the paper's kernels this is the polynomial one of degree 2, as in all public code (the paper also tries a
linear and a Gaussian one). The teacher's own term has no gradient; it is kept, so that equality is worth 0. Kernels
come from three batched matrix products, where public code multiplies out ``(B, C_s, C_t, H W)``.

Memory: ``B (C_s^2 + C_t^2 + C_s C_t)`` numbers at most, of which ``B (C_s^2 + C_s C_t)`` stay until the backward pass:
192 MiB and 128 MiB for B = 64 and 512 channels in float32.
"""

from torch import Tensor, nn

from naskd.knowledge.adapters import pool_to_smaller
from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import product, unit, widened
from naskd.nn.taps import Tap, as_map


def nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``(1/B) sum_b [mean_cd (f_c . f_d)^2 + mean_cd (g_c . g_d)^2 - 2 mean_cd (f_c . g_d)^2]``.

    ``f_c`` and ``g_c`` are the channels of student and teacher, as vectors over space of length 1; a dead channel stays
    0. Neither the order of the channels nor their scale matters. On a 1x1 grid all that is left of a channel is whether
    it is 0.

    Args:
        student: ``(B, C_s, H_s, W_s)``.
        teacher: ``(B, C_t, H_t, W_t)``, never differentiated; the larger of the two is pooled to the smaller grid.

    Returns:
        Scalar in [0, 2] up to rounding.
    """
    own, target = pool_to_smaller(widened(student), widened(teacher.detach()))
    f, g = unit(own.flatten(2), dim=2), unit(target.flatten(2), dim=2)
    return _kernel(f, f) + _kernel(g, g) - 2 * _kernel(f, g)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Mean over samples and pairs of channels; ``(B, C, N)`` and ``(B, D, N)`` to a scalar."""
    return product(x, y.mT).square().mean()


class NstLoss(PairedLoss):
    """:func:`nst_loss` summed over the chosen pairs of stages.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``: channels are of length 1 on the grid on which they are
    compared, which depends on the student, so that nothing smaller would do.
    """

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`nst_loss`."""
        return nst_loss(as_map(student), teacher)
