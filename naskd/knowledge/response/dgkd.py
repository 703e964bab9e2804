"""DGKD: Son, Na, Choi, Hwang: Densely Guided Knowledge Distillation using Multiple Teacher Assistants. ICCV 2021.

arXiv 2009.08825, section 3: a student hears its teacher and every assistant between them, not the last one alone. What
they say is not mixed: the divergences from all of them are added. So a mistake of one assistant is not passed on by
those below it. An assistant that is itself taught by this kind hears all that stand above it, as in the paper.

Stochastic teaching: with the option `drop`, each network is left out of a step with that probability, on its own. A
step may hear nobody. Nothing is scaled up for it. The default is 0, the paper's first method. The authors' code
(github.com/wonchulSon/DGKD) leaves out a fixed number of networks instead, drawn anew in each step: one by default.

That code has T = 5 and gives all weight to the answers, none to the labels. Its divergences are means over classes too,
so its weight of 1 is 1 / K here. What the paper's tables were made with is [unverified]. The paper balances labels
and answers by one lambda. Here the labels have the weight `ce_weight` of the design, and the divergence from each
network the constant of ``logits``. Further teachers that a design names are heard, too.
"""

import torch
from torch import Tensor

from naskd.knowledge.base import NOTHING_MORE, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.comparison import SeveralTeachersLoss, divergences
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm


def dgkd_loss(student: Tensor, teachers: Tensor, temperature: float, heard: Tensor) -> Tensor:
    """``sum_m h_m T^2 (1/B) sum_b KL(softmax(z_m / T) || softmax(z_s / T))``.

    Args:
        student: Logits ``(B, K)``.
        teachers: Logits ``(M, B, K)`` of the same classes in the same order, not differentiated.
        temperature: ``T > 0``.
        heard: ``(M,)``, at least 0: 1 for who is heard, 0 for who is not.

    Returns:
        Scalar, at least 0.
    """
    each = divergences(student, teachers, temperature).mean(dim=1)
    return (heard.to(each.dtype) * each).sum()


class DgkdLoss(SeveralTeachersLoss):
    """:func:`dgkd_loss` of all networks.

    In evaluation mode nothing is drawn: each is heard by the share of steps in which it would be.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.drop = float(self.card.option(term, "drop"))

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`dgkd_loss`."""
        said = self.said(teacher)
        heard = self._shares(said)
        if self.training:
            heard = torch.rand(self.n_teachers, device=said.device) >= self.drop
        return KnowledgeOutput(dgkd_loss(student.logits, said, self.settings.temperature, heard))

    def usual_term(self, drawn: Tensor, student: Taps, teacher: Summary, lesson: Lesson) -> Tensor:
        """With each network heard by its share of the steps: the first one may hear nobody, or one of several."""
        if not self.drop:
            return drawn
        said = self.said(teacher)
        return dgkd_loss(student.logits, said, self.settings.temperature, self._shares(said))

    def _shares(self, said: Tensor) -> Tensor:
        return said.new_full((self.n_teachers,), 1 - self.drop)
