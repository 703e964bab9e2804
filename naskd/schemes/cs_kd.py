"""CS-KD: Yun, Park, Lee, Shin: Regularizing class-wise predictions via self-knowledge distillation.

CVPR 2020, arXiv 2003.13964, section 2. The student says of an image what it says of another one of the same class:
``CE(p(x), y) + weight T^2 KL(p(x') || p(x))``, ``p(x')`` fixed, both softened by T. The defaults, T 4 and weight 1, are
the paper's for CIFAR-100.

Differs: the paper draws a partner for each image and computes a second batch without gradient. Here the partners of an
image are all others of its class in its batch, and the divergence is the mean over them. So images, views and order are
those of every other scheme, a teacher's answers are remembered, and partners cost no pass. Images without a partner
learn from the labels alone, and the mean is taken over the others. In a batch of 64 of 100 classes about half have one,
of 10 classes nearly all. A mixed image has partners that are mixed of the same two classes. The label term is the
design's whole objective, so that teachers of the study teach too.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.knowledge.precision import product, widened
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update


def partners(lesson: Lesson) -> Tensor:
    """Which images are of one class, ``(B, B)`` booleans; none is its own partner."""
    same = lesson.labels[:, None] == lesson.labels
    if lesson.mixed is not None:
        same = same & (lesson.mixed.labels[:, None] == lesson.mixed.labels)
    return same.fill_diagonal_(False)


def class_wise_loss(logits: Tensor, paired: Tensor, temperature: float) -> Tensor:
    """``T^2`` times the mean over partners x' of ``KL(p(x') || p(x))``, averaged over images that have one; 0 without.

    Args:
        logits: ``(B, K)``; as those of a partner they are not differentiated.
        paired: ``(B, B)``, the partners of each image.
        temperature: ``T > 0``.
    """
    logs = (widened(logits) / temperature).log_softmax(dim=1)
    with torch.no_grad():
        shares = logs.exp()
        entropy = (shares * logs).sum(dim=1, keepdim=True)
        known = torch.cat((shares, entropy), dim=1)
        found = paired.sum(dim=1, keepdim=True)
        # Of log p(x) the divergence is linear in p(x'): that of the partners' mean is the mean of theirs.
        mean = product(paired.to(known.dtype), known) / found.clamp_min(1)
    each = mean[:, -1] - (mean[:, :-1] * logs).sum(dim=1)
    return temperature**2 * each.sum() / (found > 0).sum().clamp_min(1)


class CsKdScheme(StudentScheme):
    """A student that is consistent within a class."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        self.taught = DistilledStudent(inputs)
        self.temperature = float(inputs.option("temperature"))
        self.weight = float(inputs.option("weight"))

    def phases(self) -> tuple[Phase, ...]:
        """As offline, with the partners in the last one."""
        taught = self.taught
        return (*(taught.phase(stage) for stage in taught.stages[:-1]), taught.phase("main", step=self._step))

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        taught = self.taught
        taps = taught.taps(batch.images)
        loss, terms = taught.learn(batch, asked, taps=taps)
        within = class_wise_loss(taught.logits(taps), partners(taught.lesson(batch)), self.temperature)
        yield Update("student", loss + self.weight * within, {**terms, "class_wise": within.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """With the means over partners, a product of ``(B, B)`` and ``(B, K + 1)`` a batch."""
        if phase.name == "initial":
            return self.taught.step_macs(batch_size, "initial")
        trained, asked = self.taught.step_macs(batch_size)
        return trained + batch_size * (self.taught.shapes.n_classes + 1), asked
