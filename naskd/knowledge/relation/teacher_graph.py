"""Graph distillation: Zhang, Peng: Better and Faster: Knowledge Transfer [...] via Graph Distillation. IJCAI 2018.

arXiv 1804.10069; in full, Knowledge Transfer from Multiple Self-supervised Learning Tasks via Graph Distillation for
Video Classification.

Two graphs have the teachers as their vertices, one of what they say (logits), one of how they see (representations); an
edge is how far two of them are apart. A teacher that agrees with the others teaches with more weight.

Differs: there is no public code. The paper's teachers are made by several self-supervised tasks on videos, ours are the
teachers of a design and its chain of assistants. It compares logits by an earth mover's distance and
pairs of representations after bilinear pooling, since its teachers' tasks and features differ; we take the divergence
of the classes, which all networks share here, and the cosines between samples, which any two numbers of features have.
The edges follow from what the teachers say of the batch, and are not trained.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import NOTHING_MORE, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.comparison import SeveralTeachersLoss
from naskd.knowledge.precision import widened
from naskd.knowledge.relation.similarity import cosines
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm


def teacher_graph_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_pooled: Tensor,
    teacher_pooled: Sequence[Tensor],
    temperature: float,
    representation: float = 1.0,
) -> Tensor:
    """What each teacher says and how it sees, weighted by how much the others agree with it.

    ``(1/B) sum_b sum_m w_bm T^2 KL(p_m || p_s) + representation sum_m v_m (1/B^2) |S_s - S_m|_F^2``, ``p = softmax(z /
    T)``, S the cosines between samples. ``w_b = softmax over m of - mean_(n != m) T^2 KL(p_n || p_m)``, ``v = softmax
    over m of - mean_(n != m) (1/B^2) |S_n - S_m|_F^2``.

    Args:
        student_logits: ``(B, K)``.
        teacher_logits: ``(M, B, K)``, M at least 2.
        student_pooled: ``(B, D_s)``.
        teacher_pooled: M of ``(B, D_m)``. Nothing of the teachers' is differentiated.
        temperature: ``T > 0``.
        representation: Weight of the second graph, at least 0; at 0 it is not computed.

    Returns:
        Scalar, at least 0.
    """
    log_teachers = F.log_softmax(widened(teacher_logits.detach()) / temperature, dim=-1)
    log_student = F.log_softmax(widened(student_logits) / temperature, dim=-1)
    others = _divergence(log_teachers[:, None], log_teachers[None]) * temperature**2
    weights = _agreement(others)
    loss = (weights * _divergence(log_teachers, log_student)).sum(dim=0).mean() * temperature**2
    if representation:
        seen = torch.stack([cosines(x.detach()) for x in teacher_pooled])
        apart = torch.stack([(seen - each).square().mean(dim=(1, 2)) for each in seen])
        errors = (seen - cosines(student_pooled)).square().mean(dim=(1, 2))
        loss = loss + (representation * (_agreement(apart) * errors).sum()).to(loss.dtype)
    return loss


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q)`` over the last axis."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _agreement(apart: Tensor) -> Tensor:
    """Weights of the teachers, ``(M, ...)`` with sum 1 over the first axis.

    Args:
        apart: ``(M, M, ...)``, at ``[n, m]`` how far n is from m; 0 where they are the same.
    """
    return (-apart.sum(dim=0) / (len(apart) - 1)).softmax(dim=0)


class TeacherGraphLoss(SeveralTeachersLoss):
    """:func:`teacher_graph_loss` of all teachers of the design and its chain of assistants.

    The summary of each is ``logits``, ``(B, K)``, and ``pooled``, ``(B, D_m)``.

    Memory: (M, M, B, K) numbers and (M, B, B) in float64, 5 MiB and 6 MiB at M = 3, B = 512 and K = 300.

    Raises:
        InputError: A teacher has other classes than the student.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.representation = float(self.card.option(term, "representation"))

    def summarise(self, teacher: Taps) -> Summary:
        """Of one teacher."""
        return {"logits": teacher.logits.detach(), "pooled": teacher.pooled.detach()}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """Logits, and pooled features where their weight is not 0."""
        return (student.logits, *(student.pooled,) * bool(self.representation))

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`teacher_graph_loss`."""
        return KnowledgeOutput(
            teacher_graph_loss(
                student.logits,
                self.said(teacher),
                student.pooled,
                [teacher[f"{i}/pooled"] for i in range(self.n_teachers)],
                self.settings.temperature,
                self.representation,
            )
        )
