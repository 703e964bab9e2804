"""Parameter sharing: Zhou et al.: Rocket launching. AAAI 2018, arXiv 1708.04106, equation 3.

A booster shares the student's stem and all of its stages but the last, has a deeper last stage and a classifier of its
own, and is trained beside it: ``CE(z_s) + CE(z_b) + hint |z_s - z_b|^2``, the booster's logits fixed in the last term
(the paper's gradient block). Only the student leaves.

Differs: the paper shares some lower layers of two given networks; here the booster follows from the student. The
student's own loss is the design's whole objective, so that a teacher may teach it too.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.nn.cost import network_cost
from naskd.schemes.branch import Branch
from naskd.schemes.distilled import DistilledStudent, StudentScheme
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.spec.compat import DISTILLED_STUDENT
from naskd.spec.design import ArchitectureSpec


def boosted(architecture: ArchitectureSpec, depth: int) -> ArchitectureSpec:
    """The same network with `depth` times the blocks in its last stage."""
    *lower, last = architecture.stages
    return replace(architecture, stages=(*lower, replace(last, depth=last.depth * depth)))


def rocket_loss(booster: Tensor, student: Tensor, lesson: Lesson, hint: float) -> Tensor:
    """``CE(z_b, y) + hint (1/B) sum_bk (z_s - z_b)^2``, ``z_b`` fixed in the second term.

    Args:
        booster: Logits ``(B, K)``.
        student: Logits ``(B, K)``.
        lesson: Labels of the batch.
        hint: Weight, at least 0.
    """
    apart = (student.float() - booster.float().detach()).square().sum(dim=1).mean()
    return lesson.label_loss(booster.float()) + hint * apart


class ParameterSharingScheme(StudentScheme):
    """A student and its booster, trained together by one optimizer."""

    earlier_names = DISTILLED_STUDENT

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        assert inputs.architecture is not None, "boosters are for students"
        self.taught = DistilledStudent(inputs)
        self.hint = float(inputs.option("hint"))
        depth = int(inputs.option("depth"))
        self.booster = Branch(inputs.build_variant(boosted(inputs.architecture, depth)))

    def phases(self) -> tuple[Phase, ...]:
        """As offline, the booster beside the student in the last one."""
        taught = self.taught
        main = taught.phase("main", step=self._step, beside=(self.booster,))
        return (*(taught.phase(stage) for stage in taught.stages[:-1]), main)

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        taught = self.taught
        taps = taught.taps(batch.images)
        loss, terms = taught.learn(batch, asked, taps=taps)
        boosted_logits = self.booster(taps.stages[-2].tensor)
        rocket = rocket_loss(boosted_logits, taught.logits(taps), taught.lesson(batch), self.hint)
        yield Update("student", loss + rocket, {**terms, "booster": rocket.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """With the booster's own part."""
        if phase.name == "initial":
            return self.taught.step_macs(batch_size, "initial")
        trained, asked = self.taught.step_macs(batch_size)
        below = self.taught.shapes.stages[-2]
        return trained + network_cost(self.booster, below.channels, below.grid).unmerged_macs, asked
