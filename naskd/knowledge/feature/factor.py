"""Factor transfer (FT).

Kim, Park, Kwak: Paraphrasing Complex Network: Network Compression via Factor Transfer. NeurIPS 2018, arXiv 1802.04977.

In the initial stage a paraphraser learns to say the teacher's stage in fewer channels, its factor, from which the
stage can be told again. Then the student's translator learns to say the same factor.

Differs: paraphraser, inverse and translator are two convolutions each, with a leaky ReLU (0.1) between and nothing
after the last, so that factors of either sign and stages of any scale can be reached (authors' code: three, each with
a leaky ReLU after it). No batch normalisation, as in that code, but unlike RepDistiller's translator. The
paraphraser learns in the design's own initial stage, not by itself beforehand. The difference is absolute (p = 1) and
averaged over all elements, as in the authors' code; RepDistiller squares and averages the channels first, as in
attention transfer, which is about 3 times as much. Grids of any two sizes: the larger factor is pooled before it is
normalised.

Vectors of length 1 have elements of size ``1 / sqrt(C H W)``, and so has the term.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.knowledge.adapters import pool_to_smaller
from naskd.knowledge.base import NOTHING_MORE, Lesson, LossInputs, Summary
from naskd.knowledge.paired import PairedLoss, Scores
from naskd.knowledge.precision import mean_square, unit, widened
from naskd.nn.taps import Tap, TapShape, TapShapes, as_map
from naskd.spec.design import KnowledgeTerm


def factor_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean |N(vec Tr(F_s)) - N(vec P(F_t))|`` over batch, channels and space, ``N(x) = x / |x|`` for each sample.

    Args:
        student: ``(B, C, H_s, W_s)``, the student's factor; the larger of the two is pooled to the smaller grid.
        teacher: ``(B, C, H_t, W_t)``, the teacher's, never differentiated.

    Returns:
        Scalar in ``[0, 2 / sqrt(C H W)]``.
    """
    own, target = pool_to_smaller(widened(student), widened(teacher.detach()))
    return F.l1_loss(unit(own.flatten(1), dim=1), unit(target.flatten(1), dim=1))


class Paraphraser(nn.Module):
    """An autoencoder of a stage: ``(B, C, H, W)`` to a factor ``(B, k C, H, W)`` and back.

    Args:
        channels: C.
        factors: k C.
    """

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = _two_convolutions(channels, channels, factors)
        self.decoder = _two_convolutions(factors, channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        """What the factor still tells of the stage."""
        told: Tensor = self.decoder(self.encoder(features))
        return told


def _two_convolutions(channels: int, inner: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, inner, kernel_size=3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(inner, out, kernel_size=3, padding=1),
    )


class FactorLoss(PairedLoss):
    """:func:`factor_loss` summed over the chosen pairs of stages.

    Each teacher stage of a pair has one paraphraser, whichever student stages hear it; each pair has its own
    translator. A factor has ``rate`` times the teacher's channels, rounded, at least one.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``, and not the factor, which is this design's own.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.paraphrasers = nn.ModuleDict(
            {
                str(t): Paraphraser(teacher.stages[t].channels, self._factors(teacher.stages[t]))
                for t in dict.fromkeys(t for _, t in self.pairs)
            }
        )

    def _factors(self, teacher: TapShape) -> int:
        return max(1, round(float(self.card.option(self.settings, "rate")) * teacher.channels))

    def pair_adapter(self, student: TapShape, teacher: TapShape) -> nn.Module:
        """The translator."""
        factors = self._factors(teacher)
        return _two_convolutions(student.channels, factors, factors)

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """See :func:`factor_loss`."""
        with torch.no_grad():
            factor = self._paraphraser(pair[1]).encoder(widened(teacher))
        return factor_loss(adapter(widened(as_map(student))), factor)

    def _paraphraser(self, stage: int) -> Paraphraser:
        found = self.paraphrasers[str(stage)]
        assert isinstance(found, Paraphraser)
        return found

    def initial_term(self, teacher: Summary, lesson: Lesson) -> Tensor:
        """``sum_pairs mean (P'(P(F_t)) - F_t)^2``."""
        stages = {t: widened(teacher[f"{self.key}_{t}"]) for _, t in self.pairs}
        errors = {t: mean_square(widened(self._paraphraser(t)(x)), x) for t, x in stages.items()}
        return torch.stack([errors[t] for _, t in self.pairs]).sum()

    def initial_modules(self) -> Sequence[nn.Module]:
        """The paraphrasers."""
        return [self.paraphrasers]

    def main_modules(self) -> Sequence[nn.Module]:
        """The translators, and the scores of learned pairs."""
        scores = [] if self.scores is None else [Scores([self.scores])]
        return [self.adapters, *scores]
