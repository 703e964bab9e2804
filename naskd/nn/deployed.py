"""The network that leaves a training: what is evaluated, counted, saved, exported, and may teach others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor, nn

from naskd.nn.taps import Taps
from naskd.spec.errors import InputError
from naskd.spec.registry import Registry

Description = Mapping[str, Any]
"""All that is needed to build a network again but its weights: ``kind``, a name in :data:`DEPLOYED`, and plain JSON."""

MEMBERS = ("taps", "head", "pre_activation_norms", "describe")


class DeployedNetwork(Protocol):
    """A :class:`~naskd.nn.taps.TappedNetwork` that can be stored, built again and be a teacher.

    It is a ``torch.nn.Module``, and its cost is counted as it stands: what it does not need is no part of it.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1], ``(B, C, H, W)`` float."""

    def taps(self, images: Tensor) -> Taps:
        """Logits and everything that a knowledge loss may ask for, from one forward pass."""

    @property
    def head(self) -> nn.Module | None:
        """An ``nn.Linear`` that turns `pooled` into the logits; anything else where the network ends otherwise."""

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """For each stage, the BatchNorm before its pre-activation; None where there is none, or it is not known."""

    def describe(self) -> dict[str, Any]:
        """See :data:`Description`; :func:`rebuild` is the inverse.

        Raises:
            InputError: Nobody can build this network again.
        """


@dataclass(frozen=True)
class DeployedCard:
    """A kind of network that can be built again from its description.

    Args:
        name: The ``kind`` of its descriptions.
        implementation: ``"module:function"``, or the function: from a :data:`Description` to a fresh network.
        paper: Where it was published, if it was.
    """

    name: str
    implementation: Any
    paper: str = ""


DEPLOYED: Registry[DeployedCard] = Registry("kind of network")


def as_deployed(network: nn.Module) -> DeployedNetwork:
    """The same network, known to be deployable.

    Raises:
        InputError: Its class lacks a part of :class:`DeployedNetwork`; the message names both.
    """
    # By hasattr and not by isinstance, which does not see the submodules of a module as its attributes.
    missing = [name for name in MEMBERS if not hasattr(network, name)]
    if missing:
        raise InputError(
            f"{type(network).__name__} cannot be deployed: it has no {', '.join(missing)}; "
            "see naskd.nn.deployed.DeployedNetwork"
        )
    return cast(DeployedNetwork, network)


def linear_head(network: DeployedNetwork) -> nn.Linear | None:
    """Its classifier, where that is a linear function of the pooled features."""
    head = network.head
    return head if isinstance(head, nn.Linear) else None


def rebuild(description: Description) -> nn.Module:
    """A fresh network as described, on the CPU; load the weights of the one that was described into it.

    Raises:
        InputError: The kind is not registered, or something that the description names is not there.
    """
    network: nn.Module = DEPLOYED.load(str(description["kind"]))(description)
    return network


def without_classifier(network: nn.Module, why: str) -> None:
    """Have a network hand out its pooled features as they are.

    Args:
        network: Has a ``remove_classifier()``.
        why: For the message.

    Raises:
        InputError: It has none.
    """
    remove = getattr(network, "remove_classifier", None)
    if remove is None:
        raise InputError(
            f"{why} needs a network with a classifier that it can do without; "
            f"{type(network).__name__} has no remove_classifier"
        )
    remove()
