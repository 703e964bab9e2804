"""Losses that compare stages of the student with stages of the teacher, pair by pair."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from naskd.knowledge.base import NOTHING_MORE, KnowledgeLoss, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.pairing import association_start, pair_stages
from naskd.nn.taps import Tap, Taps, TapShape, TapShapes, as_map
from naskd.spec.design import KnowledgeTerm


class Scores(nn.ParameterList):
    """Trained scores, apart from the loss that they are of, for an optimizer that does not train all of it."""

    def no_weight_decay(self) -> set[str]:
        """All of them."""
        return {name for name, _ in self.named_parameters()}


class PairedLoss(KnowledgeLoss):
    """A sum over pairs of stages; a subclass says what a pair costs.

    The pairs are chosen by ``term.pairs``. ``"learned"`` takes every student stage with every teacher stage, each
    student stage's terms weighted by a softmax over teacher stages of trained scores, which begin at the rule of
    :func:`~naskd.knowledge.pairing.pair_stages`. The weights are found by descending the term itself, as in SemCKD
    (Chen et al., AAAI 2021, arXiv 2012.03236), which computes the scores from similarities instead.

    The summary of teacher stage ``i`` is named ``<key>_<i>``; by default it is the map as it is, ``stage_<i>``.
    """

    key: ClassVar[str] = "stage"
    """First part of the summary's names."""
    field: ClassVar[Literal["stages", "pre_activations"]] = "stages"
    """Which taps are compared."""

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.pairs = pair_stages(student, teacher, term.pairs)
        own, other = getattr(student, self.field), getattr(teacher, self.field)
        self.adapters = nn.ModuleList(self.pair_adapter(own[s], other[t]) for s, t in self.pairs)
        self.scores: nn.Parameter | None = None
        if term.pairs == "learned" and len(teacher.stages) > 1:
            self.scores = nn.Parameter(association_start(student, teacher))

    def no_weight_decay(self) -> set[str]:
        """The scores: decay would draw every student stage to all teacher stages alike."""
        return {"scores"}

    def pair_adapter(self, student: TapShape, teacher: TapShape) -> nn.Module:
        """What is trained for a pair; nothing, unless a subclass says otherwise."""
        return nn.Identity()

    def stage_summary(self, teacher: Tap) -> Tensor:
        """What is kept of a teacher's stage, one row a sample; here the map ``(B, C_t, H_t, W_t)`` at its own grid."""
        return as_map(teacher)

    def pair_term(self, student: Tap, teacher: Tensor, adapter: nn.Module, pair: tuple[int, int]) -> Tensor:
        """Scalar loss of one pair, given the teacher's :meth:`stage_summary`."""
        raise NotImplementedError

    def depth_weight(self, pair: tuple[int, int]) -> float:
        """``2^-(P - 1 - i)`` of the i-th of P pairs: 1 for the deepest, half as much for every pair before it."""
        return float(2.0 ** (self.pairs.index(pair) - len(self.pairs) + 1))

    def _taps(self, network: Taps) -> Sequence[Tap]:
        taps: Sequence[Tap] = getattr(network, self.field)
        return taps

    def summarise(self, teacher: Taps) -> Summary:
        """Of each teacher stage of a pair."""
        stages = dict.fromkeys(t for _, t in self.pairs)
        return {f"{self.key}_{t}": self.stage_summary(self._taps(teacher)[t]).detach() for t in stages}

    def student_tensors(self, student: Taps) -> tuple[Tensor, ...]:
        """The student's stages that are taught."""
        return tuple(self._taps(student)[s].tensor for s in dict.fromkeys(s for s, _ in self.pairs))

    def pair_terms(self, student: Taps, teacher: Summary) -> Tensor:
        """:meth:`pair_term` of each pair, ``(P,)``; a subclass may work out all at once."""
        return torch.stack(
            [
                self.pair_term(self._taps(student)[s], teacher[f"{self.key}_{t}"], adapter, (s, t))
                for (s, t), adapter in zip(self.pairs, self.adapters, strict=True)
            ]
        )

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """The sum over pairs."""
        terms = self.pair_terms(student, teacher)
        if self.scores is not None:
            terms = self.scores.softmax(dim=1).flatten() * terms
        return KnowledgeOutput(terms.sum())
