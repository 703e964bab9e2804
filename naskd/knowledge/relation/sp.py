"""Similarity-preserving distillation (SP).

Tung, Mori: Similarity-Preserving Knowledge Distillation. ICCV 2019, arXiv 1907.09682.

Which samples of a batch are alike.

Differs: rows are brought to length 1 in the Euclidean norm, as in the paper; torchdistill divides by the sum of a
row's absolute values, which is another loss (a 28th on a random batch of 32). Any pairs of stages, not only the last;
each stage is flattened at its own grid, since the similarities have none. A sample of zeros resembles none and gets no
gradient.

Memory: ``B^2`` numbers for each network.
"""

from torch import Tensor, nn

from naskd.knowledge.paired import PairedLoss
from naskd.knowledge.precision import product, unit, widened
from naskd.nn.taps import Tap, as_map


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``(1/B^2) |N(A_s A_s^T) - N(A_t A_t^T)|_F^2``, A the stage as ``(B, C H W)``, N each row to length 1.

    Does not change when either network's features are scaled or rotated. A batch of one has nothing to compare: 0.

    Args:
        student: ``(B, ...)``.
        teacher: ``(B, ...)``, never differentiated; everything but the batch may differ.

    Returns:
        Scalar in ``[0, 4 / B]``.
    """
    own, target = _similarities(student), _similarities(teacher.detach())
    gap = own - target
    # the single row is 1 whatever the sample, unless that is 0
    return gap.square().mean() * (len(own) > 1)


def _similarities(features: Tensor) -> Tensor:
    """``(B, B)``, rows of length 1; a sample of zeros has a row of zeros."""
    rows = widened(features).flatten(1)
    return unit(product(rows, rows.mT), dim=1)


class SpLoss(PairedLoss):
    """:func:`sp_loss` summed over the chosen pairs of stages.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``: similarities belong to a batch, and a bank keeps samples.
    """

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`sp_loss`."""
        return sp_loss(as_map(student), teacher)
