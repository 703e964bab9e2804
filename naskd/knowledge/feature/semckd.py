"""SemCKD: Chen et al.: Cross-Layer Distillation with Semantic Calibration. AAAI 2021, arXiv 2012.03236.

Every student stage learns from every teacher stage, and from those the most whose sample means the same to it.

Differs: queries and keys come from a sample's own map, averaged over space. The paper takes the sample's row of the
(B, B) similarities, so that in the authors' code a layer has the batch size as its number of inputs, and no other batch
(the last one, say) can be trained. Queries and keys are linear in it, with one layer where the authors have two. The
regressors are 1x1 convolutions without batch normalisation (the authors: three layers with it), so that they are
defined for a batch of one and for 1x1 maps. As in the paper the student's stages are summed over; the authors' code
divides by their number, so that its constant of 400 is 133 here, for three stages. With one teacher stage there is
nothing to associate, and nothing is trained for it.
"""

import torch
from torch import Tensor, nn

from naskd.knowledge.adapters import ChannelAdapter, pool_to_smaller
from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.pairing import pair_stages
from naskd.knowledge.precision import product, unit, widened
from naskd.nn.layout import spatial_mean
from naskd.nn.taps import Taps, TapShapes, as_map
from naskd.spec.design import KnowledgeTerm


def semckd_loss(errors: Tensor, association: Tensor) -> Tensor:
    """``(1/B) sum_b sum_s sum_t a_bst e_bst``.

    Args:
        errors: ``(B, S, T)``, ``e_bst = mean_chw (r_st(F_s) - F_t)^2`` of a sample, a student and a teacher stage.
        association: ``(B, S, T)``, ``a``, rows that sum to 1; see :func:`association`.

    Returns:
        Scalar, at least 0.
    """
    return (widened(errors) * widened(association)).sum(dim=(1, 2)).mean()


def association(queries: Tensor, keys: Tensor) -> Tensor:
    """How much a student stage learns from a teacher stage: ``a_bs. = softmax over t of q_bs . k_bt``.

    Args:
        queries: ``(B, S, d)``, of the student's stages, of length 1.
        keys: ``(B, T, d)``, of the teacher's stages, of length 1.

    Returns:
        ``(B, S, T)``; none is more than ``e^2`` times another of its row.
    """
    return product(widened(queries), widened(keys).mT).softmax(dim=2)


class SemckdLoss(KnowledgeLoss):
    """:func:`semckd_loss` of all stages, for any batch.

    The summary is ``stage_<i>``, ``(B, C_t, H_t, W_t)``, the teacher's maps at their own grids.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        own, other = student.stages, teacher.stages
        self.pairs = pair_stages(student, teacher, "learned")
        self.regressors = nn.ModuleList(
            ChannelAdapter(own[s].channels, other[t].channels) for s, t in self.pairs
        )
        features = int(self.card.option(term, "features"))
        associates = len(other) > 1
        self.queries = nn.ModuleList(nn.Linear(shape.channels, features) for shape in own if associates)
        self.keys = nn.ModuleList(nn.Linear(shape.channels, features) for shape in other if associates)

    def summarise(self, teacher: Taps) -> Summary:
        """The maps of all stages."""
        return {f"stage_{t}": as_map(tap).detach() for t, tap in enumerate(teacher.stages)}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """All stages."""
        return tuple(tap.tensor for tap in student.stages)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`semckd_loss`."""
        own = [widened(as_map(tap)) for tap in student.stages]
        other = [widened(teacher[f"stage_{t}"]) for t in range(len(teacher))]
        errors = []
        for (s, t), regressor in zip(self.pairs, self.regressors, strict=True):
            # pooled before the convolution, with which it commutes, since the smaller map is cheaper
            features, target = pool_to_smaller(own[s], other[t])
            errors.append((widened(regressor(features)) - target).square().mean(dim=(1, 2, 3)))
        by_pair = torch.stack(errors, dim=1).reshape(-1, len(own), len(other))
        return KnowledgeOutput(semckd_loss(by_pair, self.associate(own, other, by_pair)))

    def associate(self, student: list[Tensor], teacher: list[Tensor], like: Tensor) -> Tensor:
        """The association of the stages, like `like` in shape: ``(B, S, T)``."""
        if not self.keys:
            return torch.ones_like(like)
        return association(_embedded(self.queries, student), _embedded(self.keys, teacher))


def _embedded(layers: nn.ModuleList, maps: list[Tensor]) -> Tensor:
    """Queries or keys, ``(B, stages, d)`` of length 1, of the stages' maps averaged over space."""
    means = [unit(spatial_mean(x), dim=1) for x in maps]
    embedded = [widened(layer(mean)) for layer, mean in zip(layers, means, strict=True)]
    return unit(torch.stack(embedded, dim=1), dim=2)
