"""IRG: Liu et al.: Knowledge Distillation via Instance Relationship Graph. CVPR 2019.

Differs: the authors' code is for Caffe, and its ports to torch differ. Edges are taken of every pair of stages, on the
stages averaged over space, so that student and teacher may have any grids and channels. The transformation compares how
the edges change from a stage to the next; the paper also has how the samples themselves move, for which two
stages must have the same shape (KD-Zoo, whose weights are our defaults, has that part alone, and halves the channels of
the second stage, assuming that there are twice as many). A small constant stands beside the largest distance, which
is 0 where all samples are equal: features smaller than 1e-5 look equal.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from naskd.knowledge.adapters import tap_mean
from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.comparison import check_classes
from naskd.knowledge.pairing import pair_stages
from naskd.knowledge.precision import mean_square, widened
from naskd.knowledge.relation.similarity import squared_distances
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError

_FLOOR = 1e-12


def irg_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_vectors: Sequence[Tensor],
    teacher_vectors: Sequence[Tensor],
    vertex: float = 0.1,
    edge: float = 5.0,
    transformation: float = 5.0,
) -> Tensor:
    """Vertices, edges, and how the edges change from stage to stage.

    ``vertex mean_bk (z_s - z_t)^2 + edge mean_l mean_ij (E_s^l - E_t^l)^2 + transformation mean_l mean_ij
    ((E_s^(l+1) - E_s^l) - (E_t^(l+1) - E_t^l))^2``, E as of :func:`edges`. The last part is 0 where L = 1.

    Args:
        student_logits: ``(B, K)``.
        teacher_logits: ``(B, K)``. Nothing of the teacher's is differentiated.
        student_vectors: L of ``(B, D_l)``, shallow to deep.
        teacher_vectors: L of ``(B, D'_l)``.
        vertex: Weight of the logits, at least 0.
        edge: Of the edges, likewise.
        transformation: Of how they change, likewise.

    Returns:
        Scalar, at least 0.
    """
    vertices = mean_square(widened(student_logits), widened(teacher_logits.detach()))
    own = torch.stack([edges(x) for x in student_vectors])
    target = torch.stack([edges(x.detach()) for x in teacher_vectors])
    graph = edge * mean_square(own, target)
    if len(own) > 1:
        graph = graph + transformation * mean_square(own.diff(dim=0), target.diff(dim=0))
    return vertex * vertices + graph.to(vertices.dtype)


def edges(vectors: Tensor) -> Tensor:
    """``E_ij = |g_i - g_j|^2 / (max_ij |g_i - g_j|^2 + 1e-12)``, ``(B, D)`` to ``(B, B)`` in float64, in [0, 1].

    The largest distance is differentiated like the others.
    """
    squared = squared_distances(vectors)
    return squared / (squared.amax() + _FLOOR)


class IrgLoss(KnowledgeLoss):
    """:func:`irg_loss` of the logits and of every student stage with its teacher stage.

    The summary is ``logits``, ``(B, K)``, and ``stage_mean_<i>``, ``(B, C_t)`` in float32, the stage averaged over
    space.

    Memory: two (L, B, B) tensors in float64, 8 MiB at L = 4 and B = 512, and what their gradient needs.

    Raises:
        InputError: The networks have different numbers of classes, or no weight is above 0.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        check_classes(term.kind, student, teacher)
        self.pairs = pair_stages(student, teacher, "all")
        self.vertex, self.edge, self.transformation = (
            float(self.card.option(term, name)) for name in ("vertex", "edge", "transformation")
        )
        if not (self.vertex or self._reads_stages):
            raise InputError(
                f"vertex, edge and transformation of knowledge {term.kind!r} are 0 (a single stage is not "
                "transformed), which teaches nothing; allowed: at least one above 0"
            )

    @property
    def _reads_stages(self) -> bool:
        return bool(self.edge or (self.transformation and len(self.pairs) > 1))

    def summarise(self, teacher: Taps) -> Summary:
        """Logits, and the vectors of each teacher stage of a pair."""
        stages = dict.fromkeys(t for _, t in self.pairs)
        vectors = {f"stage_mean_{t}": tap_mean(teacher.stages[t]).detach() for t in stages}
        return {"logits": teacher.logits.detach(), **vectors}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """Logits and stages, as far as their weights are not 0."""
        stages = tuple(tap.tensor for tap in student.stages)
        return (student.logits,) * bool(self.vertex) + stages * self._reads_stages

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`irg_loss`; 0 for a batch of one, which has no relations."""
        term = irg_loss(
            student.logits,
            teacher["logits"],
            [tap_mean(student.stages[s]) for s, _ in self.pairs],
            [teacher[f"stage_mean_{t}"] for _, t in self.pairs],
            self.vertex,
            self.edge,
            self.transformation,
        )
        return KnowledgeOutput(term * (len(student.logits) >= self.card.min_batch))
