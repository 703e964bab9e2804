"""SRRL: Yang et al.: Knowledge Distillation via Softmax Regression Representation Learning. ICLR 2021.

By Yang, Martinez, Bulat and Tzimiropoulos.

Differs: the connector is linear on the pooled features. The authors' is a 1x1 convolution of the last map with batch
normalisation and ReLU, pooled afterwards: ours needs no last map, commutes with the pooling, and is defined for a batch
of one. Both errors are averaged over all elements, as in the authors' code. The connector stays behind with the
teacher; the student keeps its own classifier, which learns from the labels.
"""

import torch
from torch import Tensor, nn

from naskd.knowledge.base import (
    NOTHING_MORE,
    KnowledgeLoss,
    KnowledgeOutput,
    Lesson,
    LossInputs,
    Summary,
    TeacherParts,
)
from naskd.knowledge.precision import mean_square, product, widened
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import InputError


def srrl_loss(
    student: Tensor,
    teacher: Tensor,
    logits: Tensor,
    weight: Tensor,
    bias: Tensor,
    feature: float = 1.0,
    regression: float = 1.0,
) -> Tensor:
    """``feature mean_bd (r(f_s) - f_t)^2 + regression mean_bk (W_t r(f_s) + b_t - z_t)^2``.

    Args:
        student: ``r(f_s)``, ``(B, D_t)``.
        teacher: ``f_t``, ``(B, D_t)``.
        logits: ``z_t``, ``(B, K)``.
        weight: Of the teacher's classifier, ``(K, D_t)``. Nothing of the teacher's is differentiated.
        bias: Of the teacher's classifier, ``(K,)``.
        feature: Weight of the features, at least 0.
        regression: Weight of what the teacher's classifier makes of them, at least 0.

    Returns:
        Scalar, at least 0.
    """
    own = widened(student)
    said = product(own, weight.detach().T) + bias.detach()
    features = mean_square(own, widened(teacher.detach()))
    return feature * features + regression * mean_square(said, widened(logits.detach()))


class SrrlLoss(KnowledgeLoss):
    """:func:`srrl_loss` of the pooled features; the summary is ``pooled``, ``(B, D_t)``, and ``logits``, ``(B, K)``.

    Raises:
        InputError: Both weights are 0.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.feature = float(self.card.option(term, "feature"))
        self.regression = float(self.card.option(term, "regression"))
        if not (self.feature or self.regression):
            raise InputError(
                f"feature and regression of knowledge {term.kind!r} are both 0, which teaches nothing; allowed: "
                "at least one above 0"
            )
        assert given.parts.head is not None
        weight, bias = given.parts.head
        self.connector = nn.Linear(student.n_features, teacher.n_features)
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())

    @torch.no_grad()
    def renew(self, parts: TeacherParts) -> None:
        """The teacher's classifier as it is now."""
        assert parts.head is not None
        self.weight.copy_(parts.head[0])
        self.bias.copy_(parts.head[1])

    def summarise(self, teacher: Taps) -> Summary:
        """What the teacher's classifier sees, and what it says."""
        return {"pooled": teacher.pooled.detach(), "logits": teacher.logits.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """What the student's classifier sees."""
        return (student.pooled,)

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`srrl_loss`."""
        own = self.connector(widened(student.pooled))
        head = self.weight, self.bias
        return KnowledgeOutput(
            srrl_loss(own, teacher["pooled"], teacher["logits"], *head, self.feature, self.regression)
        )
