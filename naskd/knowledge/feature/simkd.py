"""SimKD: Chen et al.: Knowledge Distillation with the Reused Teacher Classifier. CVPR 2022, arXiv 2203.14001, eq. 3.

The student has no classifier of its own: it leaves with a projector and with the teacher's, both of which count in its
cost. Other terms and the cross-entropy with the labels see the logits that the deployed network has; the paper trains
without labels, which is ``ce_weight = 0``.

Differs: grids of any two sizes are pooled to the smaller one, and the classifier sees the mean over that grid. The
error is averaged over all elements, as in the authors' code.
"""

import torch
from torch import Tensor, nn

from naskd.knowledge.adapters import pool_to_smaller
from naskd.knowledge.base import (
    NOTHING_MORE,
    KnowledgeLoss,
    KnowledgeOutput,
    Lesson,
    LossInputs,
    Summary,
    TeacherParts,
)
from naskd.knowledge.feature.hint import hint_loss
from naskd.knowledge.precision import widened
from naskd.nn.projected import ProjectedStudent, Projector, ProjectorShape, ReusedClassifier, with_classifier
from naskd.nn.taps import Taps, TapShapes, as_map
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError


class SimkdLoss(KnowledgeLoss):
    """``mean (P(F_s) - F_t)^2`` on the last stages; the summary is ``stage_<i>``, the teacher's last map.

    Raises:
        InputError: The teacher's pooled features are not the mean of its last stage.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        assert given.parts.head is not None
        weight, bias = given.parts.head
        own, other = student.stages[-1], teacher.stages[-1]
        if weight.shape[1] != other.channels:
            raise InputError(
                f"knowledge 'simkd' reuses the teacher's classifier on the mean of its last stage: the classifier "
                f"reads {weight.shape[1]} features, the stage has {other.channels} channels; name the last "
                "stage before the classifier in teacher.taps"
            )
        if not given.parts.head_reads_mean:
            raise InputError(
                "knowledge 'simkd' reuses the teacher's classifier on the mean of its last stage, and this one reads "
                "something else of it, after a normalisation, say; 'srrl' teaches what the classifier reads"
            )
        if weight.shape[0] != student.n_classes:
            raise InputError(
                f"knowledge 'simkd' reuses the teacher's classifier: it has {weight.shape[0]} classes, the study "
                f"{student.n_classes}"
            )
        inner = max(1, other.channels // int(self.card.option(term, "factor")))
        grid = (min(own.grid[0], other.grid[0]), min(own.grid[1], other.grid[1]))
        shape = ProjectorShape(own.channels, inner, other.channels, grid, weight.shape[0])
        self.key = f"stage_{len(teacher.stages) - 1}"
        self.projector = Projector(shape)
        self.classifier = ReusedClassifier(weight, bias)

    @torch.no_grad()
    def renew(self, parts: TeacherParts) -> None:
        """The teacher's classifier as it is now."""
        assert parts.head is not None
        self.classifier.weight.copy_(parts.head[0])
        self.classifier.bias.copy_(parts.head[1])

    def summarise(self, teacher: Taps) -> Summary:
        """The teacher's last map at its own grid."""
        return {self.key: as_map(teacher.stages[-1]).detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's last stage."""
        return (student.stages[-1].tensor,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See the class."""
        own, target = pool_to_smaller(widened(as_map(student.stages[-1])), widened(teacher[self.key]))
        return KnowledgeOutput(hint_loss(self.projector(own), target))

    def deployed_taps(self, student: Taps) -> Taps:
        """With the logits of the teacher's classifier."""
        return with_classifier(student, self.projector, self.classifier)

    def deploy(self, student: nn.Module) -> nn.Module:
        """See :class:`~naskd.nn.projected.ProjectedStudent`."""
        return ProjectedStudent(student, self.projector, self.classifier)
