"""Several teachers as one: You, Xu, Xu, Tao: Learning from Multiple Teacher Networks. KDD 2017, section 3.1.

The student is told the mean of what its teachers say: the teachers of the design, and its chain of assistants. Option
`mean` says which:

- ``probabilities``: the arithmetic mean at temperature T, as in the paper and in Hinton et al., 2015, arXiv 1503.02531.
- ``logits``: the mean of the logits, which is the geometric mean of the probabilities, brought to sum 1.
- ``drawn``: in each step, one teacher for each image, drawn evenly, and no other is asked about it. After Fukuda,
  Suzuki, Kurata, Thomas, Cui, Ramabhadran: Efficient Knowledge Distillation from an Ensemble of Teachers. Interspeech
  2017.
- ``learned``: weights are trained beside the student, one for each teacher, the same for all images.

The mean of divergences from the teachers differs from the divergence from their mean by what does not depend on the
student. So ``drawn`` has the gradient of ``probabilities`` on average. With weights that are learned, the objective is
``sum_m w_m KL_m + KL(w || uniform)``. It is smallest at ``w_m`` in proportion to ``exp(-KL_m)``: no teacher is lost,
and those are heard more whom the student can follow.

Differs: the paper adds a loss on triplets of intermediate features, which is left out: kinds on relations may teach
beside this one. Fukuda et al. change the teacher from batch to batch; one for each image is less noisy. No source has
our form of ``learned``. Weights that minimise the divergence alone would all go to the least certain teacher.

With ``drawn`` a step costs the mean of what the teachers cost, and with the other means their sum. With a bank, what
each says of an image is worked out once for all trainings, whatever the mean is.
"""

import math

import torch
from torch import Tensor, nn

from naskd.knowledge.base import NOTHING_MORE, KnowledgeOutput, Lesson, LossInputs, Summary
from naskd.knowledge.comparison import SeveralTeachersLoss, divergences, soft_divergence
from naskd.knowledge.precision import widened
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm


def ensemble_logits(teachers: Tensor, temperature: float, mean: str = "probabilities") -> Tensor:
    """Logits ``(B, K)`` of which ``softmax(z / T)`` is the mean of what teachers say at T.

    Args:
        teachers: Logits ``(M, B, K)``, M at least 1.
        temperature: ``T > 0``.
        mean: ``probabilities`` or ``logits``.
    """
    teachers = widened(teachers)
    if mean == "logits":
        return teachers.mean(dim=0)
    return temperature * (teachers / temperature).log_softmax(dim=2).logsumexp(dim=0)


def ensemble_loss(
    student: Tensor, teachers: Tensor, temperature: float, mean: str = "probabilities"
) -> Tensor:
    """``T^2 (1/B) sum_b KL(softmax(z_e / T) || softmax(z_s / T))``, `z_e` of :func:`ensemble_logits`.

    Args:
        student: Logits ``(B, K)``.
        teachers: Logits ``(M, B, K)`` of the same classes in the same order, not differentiated.
        temperature: ``T > 0``.
        mean: ``probabilities`` or ``logits``.

    Returns:
        Scalar, at least 0.
    """
    return soft_divergence(student, ensemble_logits(teachers, temperature, mean), temperature).mean()


def learned_loss(student: Tensor, teachers: Tensor, temperature: float, scores: Tensor) -> Tensor:
    """``T^2 [sum_m w_m (1/B) sum_b KL(p_m || p_s) + KL(w || uniform)]``, ``w = softmax(scores)``.

    Args:
        student: Logits ``(B, K)``.
        teachers: Logits ``(M, B, K)``, not differentiated.
        temperature: ``T > 0``.
        scores: ``(M,)``; differentiated too.

    Returns:
        Scalar, at least 0.
    """
    logs = widened(scores).log_softmax(dim=0)
    weights = logs.exp()
    apart = (weights * divergences(student, teachers, temperature).mean(dim=1)).sum()
    uneven = (weights * (logs + math.log(len(logs)))).sum()
    return apart + temperature**2 * uneven


class EnsembleLoss(SeveralTeachersLoss):
    """:func:`ensemble_loss` or :func:`learned_loss` of all teachers, or the divergence from the one that is drawn.

    Where it draws and is told what all of them say, the value is what drawing gives on average.
    """

    def __init__(
        self, term: KnowledgeTerm, student: TapShapes, teacher: TapShapes, given: LossInputs = NOTHING_MORE
    ) -> None:
        super().__init__(term, student, teacher, given)
        self.mean = str(self.card.option(term, "mean"))
        self.draws = self.mean == "drawn"
        self.scores = nn.Parameter(torch.zeros(self.n_teachers)) if self.mean == "learned" else None

    def forward(self, student: Taps, teacher: Summary, lesson: Lesson) -> KnowledgeOutput:
        """See the class."""
        own, temperature = student.logits, self.settings.temperature
        if "logits" in teacher:
            apart = soft_divergence(widened(own), widened(teacher["logits"]), temperature)
            return KnowledgeOutput(apart.mean())
        said = self.said(teacher)
        if self.scores is not None:
            return KnowledgeOutput(learned_loss(own, said, temperature, self.scores))
        if self.draws:
            return KnowledgeOutput(divergences(own, said, temperature).mean())
        return KnowledgeOutput(ensemble_loss(own, said, temperature, self.mean))
