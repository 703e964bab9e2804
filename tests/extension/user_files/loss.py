"""A knowledge loss of one's own: how far two networks' pooled features point apart, after a learned map."""

from torch import Tensor, nn

from naskd.knowledge import KNOWLEDGE, KnowledgeCard
from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.precision import product, unit, widened
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm


class DirectionLoss(KnowledgeLoss):
    """``mean(1 - cos(W f_s, f_t))`` with a learned ``W`` from the student's features to the teacher's."""

    repeats = True

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.map = nn.Linear(student.n_features, teacher.n_features, bias=False)

    def summarise(self, teacher: Taps) -> Summary:
        """Pooled features, ``(B, D)``."""
        return {"pooled": teacher.pooled.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """Pooled features."""
        return (student.pooled,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """In float32 at least, whatever the networks compute in."""
        ours = product(widened(student.pooled), self.map.weight.t())
        cosine = (unit(ours, dim=1) * unit(widened(teacher["pooled"]), dim=1)).sum(dim=1)
        return KnowledgeOutput((1 - cosine).mean())


KNOWLEDGE.register(
    KnowledgeCard(
        name="direction",
        family="feature",
        title="direction of the pooled features",
        paper="",
        equation="mean(1 - cos(W f_s, f_t))",
        implementation=DirectionLoss,
        taps=("pooled",),
        paper_weight=1.0,
        paper_setting="",
    )
)
