"""Parameter sharing: Zhou et al.: Rocket launching. AAAI 2018, arXiv 1708.04106, equation 3.

A booster shares the student's stem and all of its stages but the last, has a deeper last stage and a classifier of its
own, and is trained beside it: ``CE(z_s) + CE(z_b) + hint |z_s - z_b|^2``, the booster's logits fixed in the last term
(the paper's gradient block). Only the student leaves.

Differs: the paper shares some lower layers of two given networks; here the booster follows from the student. The
student's own loss is the design's whole objective, so that a teacher may teach it too.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor, nn

from naskd.knowledge.base import Lesson
from naskd.networks.cnn import ConvStudent
from naskd.nn.cost import network_cost
from naskd.nn.layout import spatial_mean
from naskd.schemes.offline import OfflineScheme
from naskd.schemes.scheme import Asked, Batch, Phase, SchemeInputs, Update
from naskd.spec.design import ArchitectureSpec


class Booster(nn.Module):
    """The booster's own part: features ``(B, C, H, W)`` of the student's last shared stage to logits ``(B, K)``.

    Args:
        network: A whole network with the booster's stages; its last one and its classifier are taken.
    """

    def __init__(self, network: ConvStudent) -> None:
        super().__init__()
        self.stage = network.stages[-1]
        self.head = network.head

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.head(spatial_mean(self.stage(features)))
        return logits


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
    return lesson.cross_entropy(booster.float()).mean() + hint * apart


class ParameterSharingScheme(OfflineScheme):
    """A student and its booster, trained together by one optimizer."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__(inputs)
        assert inputs.architecture is not None, "boosters are for students"
        self.hint = float(inputs.option("hint"))
        variant = inputs.build_variant(boosted(inputs.architecture, int(inputs.option("depth"))))
        assert isinstance(variant, ConvStudent)
        self.booster = Booster(variant)

    def phases(self) -> tuple[Phase, ...]:
        """As offline, the booster beside the student in the last one."""
        *initial, main = super().phases()
        return (*initial, replace(main, trained={"student": (*main.trained["student"], self.booster)}))

    def _step(self, batch: Batch, asked: Asked) -> Iterator[Update]:
        assert isinstance(self.student, ConvStudent)
        taps = self.student.taps(batch.images)
        lesson = self.lesson(batch)
        loss, terms = self.objective(taps, asked, lesson)
        logits = self.deployed_logits(taps)
        rocket = rocket_loss(self.booster(taps.stages[-2].tensor), logits, lesson, self.hint)
        yield Update("student", loss + rocket, {**terms, "booster": rocket.detach()})

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """With the booster's own part."""
        trained, asked = super().step_macs(batch_size, phase)
        if phase.name == "initial":
            return trained, asked
        below = self.shapes.stages[-2]
        return trained + network_cost(self.booster, below.channels, below.grid).macs, asked
