"""Students that leave with smaller networks beside them, which correct what they say or what they see."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from naskd.nn.deployed import Description, as_deployed, linear_head, rebuild, without_classifier
from naskd.nn.taps import TappedNetwork, Taps
from naskd.spec.errors import InputError


def tapped(network: nn.Module) -> TappedNetwork:
    """The same network, known to show its taps."""
    assert isinstance(network, TappedNetwork)
    return network


class SummedStudent(nn.Module):
    """Networks of the same images and classes whose logits are added.

    Li, Li, Omar, Wu, Li: ResKD: Residual-Guided Knowledge Distillation. TIP 2021, arXiv 2006.04719.

    Args:
        members: The student, and those that correct its logits; at least one.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1]."""
        return sum_of([member(images) for member in self.members])

    def taps(self, images: Tensor) -> Taps:
        """The student's, but for the logits, which are all networks' together."""
        first, *others = self.members
        own = tapped(first).taps(images)
        return replace(own, logits=sum_of([own.logits, *(member(images) for member in others)]))

    @property
    def head(self) -> None:
        """There is none: the logits are no function of the student's pooled features."""
        return

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """The student's."""
        return as_deployed(self.members[0]).pre_activation_norms()

    def describe(self) -> dict[str, Any]:
        """See :class:`~naskd.nn.deployed.DeployedNetwork`."""
        return {"kind": "summed", "members": [as_deployed(member).describe() for member in self.members]}


def sum_of(logits: Sequence[Tensor]) -> Tensor:
    """Of at least one."""
    return torch.stack(tuple(logits)).sum(dim=0)


def rebuild_summed(description: Description) -> SummedStudent:
    """The inverse of :meth:`SummedStudent.describe`."""
    return SummedStudent([rebuild(member) for member in description["members"]])


class FeatureAssistant(nn.Module):
    """A network without a classifier, and a linear map from its channels to those of the student that it corrects.

    The map is 0 at first, so that nothing is corrected.

    Args:
        network: Its last stage has the student's grid. Its classifier is removed.
        own: Channels of its last stage.
        student: Channels of the student's.
    """

    def __init__(self, network: nn.Module, own: int, student: int) -> None:
        super().__init__()
        without_classifier(network, "an assistant on features")
        self.network = network
        self.projection = nn.Linear(own, student, bias=False)
        nn.init.zeros_(self.projection.weight)

    def corrected(self, student: Taps, images: Tensor, classifier: Tensor) -> Taps:
        """The student's taps with what this network adds to the last stage, and so to pooled features and logits.

        Args:
            student: Of these images; the pooled features are the mean of its last stage.
            images: ``(B, C, H, W)`` in [0, 1].
            classifier: ``(K, D)``, weight of the student's.
        """
        own = tapped(self.network).taps(images)
        last = student.stages[-1]
        weight = self.projection.weight[:, :, None, None]
        added = F.conv2d(own.stages[-1].tensor, weight)
        pooled = self.projection(own.pooled)
        return replace(
            student,
            stages=(*student.stages[:-1], replace(last, tensor=last.tensor + added)),
            pooled=student.pooled + pooled,
            logits=student.logits + F.linear(pooled, classifier),
        )


class AssistedStudent(nn.Module):
    """A student whose last features an assistant corrects before they are classified.

    Gao, Shen, Li, Loy: Residual Knowledge Distillation. 2020, arXiv 2002.09168.

    Args:
        student: Its classifier is an ``nn.Linear`` on the mean of its last stage, a map.
        assistant: Of the same images.

    Raises:
        InputError: The student has no such classifier.
    """

    def __init__(self, student: nn.Module, assistant: FeatureAssistant) -> None:
        super().__init__()
        if linear_head(as_deployed(student)) is None:
            raise InputError(
                f"an assistant on features needs a student with a linear classifier, not a {type(student).__name__}"
            )
        self.student = student
        self.assistant = assistant

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1]; features are corrected after they are pooled, which is the same."""
        added = self.assistant.projection(tapped(self.assistant.network).taps(images).pooled)
        logits: Tensor = self.student(images)
        return logits + F.linear(added, self.head.weight)

    def taps(self, images: Tensor) -> Taps:
        """The student's, with the last stage, pooled features and logits corrected."""
        return self.assistant.corrected(tapped(self.student).taps(images), images, self.head.weight)

    @property
    def head(self) -> nn.Linear:
        """The student's."""
        found = linear_head(as_deployed(self.student))
        assert found is not None
        return found

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """None of the last stage: what is added comes after its activation."""
        return (*as_deployed(self.student).pre_activation_norms()[:-1], None)

    def describe(self) -> dict[str, Any]:
        """See :class:`~naskd.nn.deployed.DeployedNetwork`."""
        student, own = self.assistant.projection.weight.shape
        return {
            "kind": "assisted",
            "student": as_deployed(self.student).describe(),
            "assistant": as_deployed(self.assistant.network).describe(),
            "channels": [own, student],
        }


def rebuild_assisted(description: Description) -> AssistedStudent:
    """The inverse of :meth:`AssistedStudent.describe`."""
    assistant = FeatureAssistant(rebuild(description["assistant"]), *description["channels"])
    return AssistedStudent(rebuild(description["student"]), assistant)
