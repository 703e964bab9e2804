"""The contract of a knowledge loss."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from naskd.config import KnowledgeTerm
from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.card import KnowledgeCard
from naskd.taps import Taps, TapShapes

Summary = Mapping[str, Tensor]
"""What a loss keeps of the teacher for a batch: tensors by name, each with the batch first.

The name says what the tensor is (``logits``, ``pooled``, ``stage_2``, ``attention_2``) and nothing else does:
under one name every loss, student and setting keeps the same values, so that a bank stores them once. Which
names are kept may depend on the student.
"""


@dataclass(frozen=True)
class KnowledgeOutput:
    """One term of the loss.

    Args:
        term: Scalar, unweighted.
        label_weights: ``(B,)`` factors of each sample's cross-entropy with the label, or None where the loss
            leaves the labels alone (conditional distillation does not).
    """

    term: Tensor
    label_weights: Tensor | None = None


class KnowledgeLoss(nn.Module):
    """A thin class over a pure function.

    A loss sees the student's taps and a *summary* of the teacher's, never the teacher: what :meth:`summarise`
    returns is all that a knowledge bank has to store. It builds its adapters from shapes alone; they are
    trained with the student, and never counted in its cost unless the card says ``deployed``.

    A loss computes in float32 at least, under autocast too; its value does not depend on the order of the
    batch; and it never waits for the device (no ``item``, no branch on a value).

    Args:
        term: The searched settings; ``term.kind`` names the card.
        student: Shapes of its taps.
        teacher: Shapes of its taps.

    Raises:
        ValueError: The kind is not registered, an option is unknown or out of range, or the two networks
            cannot be matched.
    """

    card: KnowledgeCard

    def __init__(self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes) -> None:
        super().__init__()
        self.card = KNOWLEDGE[term.kind]
        self.settings = term
        problems = self.card.problems(term, n_stages=min(len(student.stages), len(teacher.stages)))
        if problems:
            raise ValueError("; ".join(problems))

    def summarise(self, teacher: Taps) -> Summary:
        """What the loss needs of the teacher, one row a sample, detached; see :data:`Summary`."""
        raise NotImplementedError

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's tensors that the loss reads, and that its gradient reaches.

        Here ``balanced`` compares the gradient of the loss with cross-entropy's.
        """
        raise NotImplementedError

    def forward(self, student: Taps, teacher: Summary, labels: Tensor, index: Tensor) -> KnowledgeOutput:
        """The loss of a batch.

        Args:
            student: The student's taps.
            teacher: What :meth:`summarise` returned for the same images.
            labels: ``(B,)`` class indices.
            index: ``(B,)`` positions of the samples in the training split.

        Returns:
            Finite, with finite gradients, for every ``B >= 1``; below ``card.min_batch`` the term is 0.
        """
        raise NotImplementedError
