"""Teacher-free distillation (Tf-KD reg): Yuan, Tay, Li, Wang, Feng. CVPR 2020, arXiv 1909.11723, equations 9 and 10.

Differs: the authors' code takes the softmax of the virtual teacher's *probabilities* over T, which at T = 20 is all but
uniform whatever they are, leaves the student at T = 1, and averages over classes too, for which a multiplier tuned for
each network makes up. Here, as in the paper, both sides are softened, the teacher's logits being ``log u``; the factor
``T^2`` is that of all losses here.
"""

import math

import torch
from torch import Tensor

from naskd.knowledge.base import KnowledgeOutput, Lesson, Summary
from naskd.knowledge.comparison import ResponseLoss, soft_divergence
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps


def tf_kd_loss(
    student: Tensor, labels: Tensor, temperature: float, correct: float, classes: Tensor | None = None
) -> Tensor:
    """``T^2 (1/B) sum_b KL(softmax(log(u) / T) || softmax(z_s / T))``.

    The virtual teacher ``u`` gives `correct` to the label and ``(1 - correct) / (K - 1)`` to every other class.

    Args:
        student: Logits ``(B, K)``, K at least 2.
        labels: ``(B,)``.
        temperature: ``T > 0``.
        correct: In (0, 1).
        classes: ``(K,)`` booleans: the classes among which a label is told from others, its own among them, of which
            alone teacher and student speak; None for all.

    Returns:
        Scalar, at least 0.
    """
    own = widened(student)
    if classes is None:
        others = torch.full_like(own, math.log((1 - correct) / (own.shape[1] - 1)))
        virtual = others.scatter(1, labels[:, None], math.log(correct))
        return soft_divergence(own, virtual, temperature).mean()
    n_others = (classes.sum() - 1).clamp(min=1).to(own.dtype)
    others = (math.log(1 - correct) - n_others.log()).expand_as(own)
    virtual = others.scatter(1, labels[:, None], math.log(correct))
    logs, target = (
        (z / temperature).masked_fill(~classes, -torch.inf).log_softmax(dim=1) for z in (own, virtual)
    )
    # Of the others both probabilities are 0, and the difference of their logarithms is none.
    apart = torch.where(classes, target.exp() * (target - logs), 0.0).sum(dim=1)
    return temperature**2 * apart.mean()


class TfKdLoss(ResponseLoss):
    """:func:`tf_kd_loss` of the student's logits."""

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See :func:`tf_kd_loss`."""
        correct = float(self.card.option(self.settings, "correct"))
        given = student.logits, lesson.labels, self.settings.temperature, correct
        return KnowledgeOutput(tf_kd_loss(*given, lesson.classes))
