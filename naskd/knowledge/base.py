"""The contract of a knowledge loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from naskd.config import KnowledgeTerm
from naskd.knowledge.card import KnowledgeCard
from naskd.taps import Taps, TapShapes

Summary = Mapping[str, Tensor]
"""What a loss keeps of the teacher for a batch: tensors by name, each with the batch first."""


@dataclass(frozen=True)
class KnowledgeOutput:
    """One term of the loss.

    Args:
        term: Scalar, unweighted.
        label_weights: ``(B,)`` factors of each sample's cross-entropy with the label, or None where the loss leaves the
            labels alone (conditional distillation does not).
    """

    term: Tensor
    label_weights: Tensor | None = None


class KnowledgeLoss(nn.Module):
    """A thin class over a pure function.

    A loss sees the student's taps and a *summary* of the teacher's, never the teacher: what :meth:`summarise` returns is all that
    a knowledge bank has to store. It builds its adapters from shapes alone; they are trained with the student, and
    never counted in its cost unless the card says ``deployed``.

    Args:
        term: The searched settings.
        student, teacher: Shapes of the taps.

    Raises:
        ValueError: The two networks cannot be matched.
    """

    card: ClassVar[KnowledgeCard]

    def __init__(self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes) -> None:
        super().__init__()
        self.settings = term

    def summarise(self, teacher: Taps) -> Summary:
        """What the loss needs of the teacher, one row a sample. Independent of student and labels."""
        raise NotImplementedError

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's tensors that the loss reads: where ``balanced`` compares its gradient with cross-entropy's."""
        raise NotImplementedError

    def forward(self, student: Taps, teacher: Summary, labels: Tensor, index: Tensor) -> KnowledgeOutput:
        """The loss of a batch.

        Args:
            student: The student's taps.
            teacher: What :meth:`summarise` returned for the same images.
            labels: ``(B,)`` class indices.
            index: ``(B,)`` positions of the samples in the training split.
        """
        raise NotImplementedError
