"""Information flow: Passalis et al.: Heterogeneous Knowledge Distillation using Information Flow Modeling. CVPR 2020.

arXiv 2005.00727, by Passalis, Tzelepi and Tefas.

The stages count much while a network forms its connections (its critical learning period), and ever less afterwards,
when the last representation is left alone.

Differs: the weight of the stages falls with the share of the training that is done, and not by 0.7 an epoch, which is
the same over the authors' 50 epochs and would be nothing after ten of a long training. Stages of any number and depth
are paired, in place of the paper's auxiliary teacher of the student's depth, which the authors train first; a design
can have one as its teacher assistant. Stages are averaged over space first. A small constant stands inside the
logarithms (the authors' code has none), and both kernels are of features divided by their length (in the authors' code
the cosine alone), so that the scale of the student's features is free.
"""

import math

import torch
from torch import Tensor

from naskd.knowledge.adapters import tap_mean
from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.pairing import pair_stages
from naskd.knowledge.precision import unit, widened
from naskd.knowledge.relation.pkt import neighbours
from naskd.knowledge.relation.similarity import squared_distances
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm

_FLOOR = 1e-7
_EQUAL = 1e-12


def flow_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """``sum over kernels of mean_ij (P_t - P_s) (log(P_t + 1e-7) - log(P_s + 1e-7))``, P a kernel with rows to sum 1.

    Kernels are ``(cos(x_i, x_j) + 1) / 2`` and ``1 / (1 + |x_i - x_j|)``, x divided by its length, the diagonal left
    in. 0 for a batch of one.

    Args:
        student: ``(B, D_s)``.
        teacher: ``(B, D_t)``, never differentiated; the two numbers of features may differ.

    Returns:
        Scalar, at least 0.
    """
    own, target = _probabilities(student), _probabilities(teacher.detach())
    jeffreys = (target - own) * ((target + _FLOOR).log() - (own + _FLOOR).log())
    return jeffreys.mean(dim=(1, 2)).sum().to(widened(student).dtype)


def _probabilities(features: Tensor) -> Tensor:
    """``(2, B, B)`` in float64, of the two kernels."""
    squared = squared_distances(unit(features.double(), dim=1))
    # A root has no gradient at 0: samples nearer than 1e-6 count as equal, without one. Exactly, since rounding would
    # show beside the 1 of the kernel.
    apart = squared > _EQUAL
    distances = torch.where(apart, squared, 1.0).sqrt() * apart
    heavy_tailed = 1 / (1 + distances)
    return torch.stack([neighbours(features), heavy_tailed / heavy_tailed.sum(dim=1, keepdim=True)])


class InformationFlowLoss(KnowledgeLoss):
    """``D(pooled) + w sum_l D(stage l averaged over space)``, ``w = start exp(-fall progress)``.

    D is :func:`flow_divergence`; every student stage is compared with its teacher stage. The summary is ``pooled``,
    ``(B, D_t)``, and ``stage_mean_<i>``, ``(B, C_t)`` in float32, the stage averaged over space.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.pairs = pair_stages(student, teacher, "all")
        self.start = float(self.card.option(term, "start"))
        self.fall = float(self.card.option(term, "fall"))

    def summarise(self, teacher: Taps) -> Summary:
        """Pooled features, and the vectors of each teacher stage of a pair."""
        stages = dict.fromkeys(t for _, t in self.pairs)
        vectors = {f"stage_mean_{t}": tap_mean(teacher.stages[t]).detach() for t in stages}
        return {"pooled": teacher.pooled.detach(), **vectors}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """Pooled features and all stages."""
        return (student.pooled, *(tap.tensor for tap in student.stages))

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See the class."""
        stages = [
            flow_divergence(tap_mean(student.stages[s]), teacher[f"stage_mean_{t}"]) for s, t in self.pairs
        ]
        weight = self.start * math.exp(-self.fall * lesson.progress)
        last = flow_divergence(student.pooled, teacher["pooled"])
        return KnowledgeOutput(last + weight * sum(stages[1:], stages[0]))
