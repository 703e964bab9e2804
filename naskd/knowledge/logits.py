"""Logits (KD): Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. 2015, arXiv 1503.02531.

Differs: the Kullback-Leibler divergence in place of the paper's soft cross-entropy, as in all later work: the
gradients are equal, and the value is 0 when the student agrees. The sum over classes is averaged over the
batch; some public code averages over classes as well, which divides the term by K.
"""

import torch.nn.functional as F
from torch import Tensor

from naskd.config import KnowledgeTerm
from naskd.knowledge.base import KnowledgeLoss, KnowledgeOutput, Summary
from naskd.knowledge.precision import widened
from naskd.taps import Taps, TapShapes


def logits_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T^2 (1/B) sum_b KL(softmax(z_t / T) || softmax(z_s / T))``.

    The factor ``T^2`` keeps the size of the gradient: for large ``T`` and zero-mean logits it is ``(z_s -
    z_t) / (B K)``.

    Args:
        student: Logits ``(B, K)``.
        teacher: Logits ``(B, K)`` of the same classes in the same order.
        temperature: ``T > 0``.

    Returns:
        Scalar, at least 0.
    """
    log_student = F.log_softmax(widened(student) / temperature, dim=1)
    log_teacher = F.log_softmax(widened(teacher) / temperature, dim=1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


class LogitsLoss(KnowledgeLoss):
    """:func:`logits_loss` of the two networks' logits; the summary is ``logits``, ``(B, K)``.

    Raises:
        ValueError: The networks have different numbers of classes.
    """

    def __init__(self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes) -> None:
        super().__init__(term, student, teacher)
        if student.n_classes != teacher.n_classes:
            raise ValueError(
                f"knowledge {term.kind!r} compares classes: the student has {student.n_classes}, "
                f"the teacher {teacher.n_classes}; give the teacher a head of {student.n_classes} classes"
            )

    def summarise(self, teacher: Taps) -> Summary:
        """The teacher's logits."""
        return {"logits": teacher.logits.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's logits."""
        return (student.logits,)

    def forward(self, student: Taps, teacher: Summary, labels: Tensor, index: Tensor) -> KnowledgeOutput:
        """See :func:`logits_loss`."""
        return KnowledgeOutput(logits_loss(student.logits, teacher["logits"], self.settings.temperature))
