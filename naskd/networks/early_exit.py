"""An exit after an early stage of a network, beside it or in its place.

Zhang, Song, Gao, Chen, Bao, Ma: Be your own teacher. ICCV 2019, arXiv 1905.08094, section 3.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from naskd.networks.cnn import ConvStudent
from naskd.networks.layers import conv_norm, strided
from naskd.networks.student import build_student, rebuild_student
from naskd.nn.deployed import Description
from naskd.nn.layout import spatial_mean
from naskd.nn.taps import Taps
from naskd.spec.errors import InputError


class Exit(nn.Module):
    """A bottleneck and a classifier: ``(B, C, H, W)`` of a stage to features ``(B, D)`` and logits ``(B, K)``.

    Args:
        channels: C, of the stage.
        halvings: Of the grid, by 3x3 convolutions of stride 2; 0 keeps it, with one of stride 1.
        n_features: D.
        n_classes: K.
    """

    def __init__(self, channels: int, halvings: int, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.settings = {
            "channels": channels,
            "halvings": halvings,
            "n_features": n_features,
            "n_classes": n_classes,
        }
        layers: list[nn.Module] = []
        for stride in (2,) * halvings or (1,):
            layers += [*conv_norm(channels, channels, 3, stride), nn.ReLU()]
        self.bottleneck = nn.Sequential(*layers, *conv_norm(channels, n_features, 1))
        self.head = nn.Linear(n_features, n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        features = spatial_mean(self.bottleneck(x))
        return features, self.head(features)


def halvings(side: int, last: int) -> int:
    """How often a grid of `side` is halved until it is no larger than one of `last`."""
    found = 0
    while side > last:
        side, found = strided(side, 2), found + 1
    return found


class EarlyExit(nn.Module):
    """The first stages of a network and the exit after them: what leaves in place of the whole.

    Args:
        trunk: The stages, without a classifier.
        leave: The exit.
    """

    def __init__(self, trunk: ConvStudent, leave: Exit) -> None:
        super().__init__()
        self.trunk = trunk
        self.leave = leave

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1], ``(B, C, H, W)`` float."""
        return self.taps(images).logits

    def taps(self, images: Tensor) -> Taps:
        """Those of the stages; features and logits are the exit's."""
        shown = self.trunk.taps(images)
        pooled, logits = self.leave(shown.stages[-1].tensor)
        return replace(shown, pooled=pooled, logits=logits)

    @property
    def head(self) -> nn.Linear:
        """The exit's."""
        return self.leave.head

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Of the stages."""
        return self.trunk.pre_activation_norms()

    def describe(self) -> dict[str, Any]:
        """See :class:`~naskd.nn.deployed.DeployedNetwork`."""
        return {"kind": "early_exit", "trunk": self.trunk.describe(), "exit": dict(self.leave.settings)}


def first_stages(network: nn.Module, n: int) -> ConvStudent:
    """The first `n` stages of a network without a classifier: the same modules, not copies.

    Raises:
        InputError: The network is none of the family ``cnn``, or one of integers.
    """
    if not isinstance(network, ConvStudent):
        raise InputError(
            f"an exit leaves in place of a network of the family 'cnn' alone, not of a {type(network).__name__}"
        )
    spec = network.spec
    if spec.is_quantized:
        raise InputError("an exit has no integer form: the bits of all stages must be 32 where it leaves")
    colours = network.mean.numel()
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        found = build_student(
            replace(spec, stages=spec.stages[:n]),
            colours,
            network.n_classes,
            (0.0,) * colours,
            (1.0,) * colours,
        )
    assert isinstance(found, ConvStudent)
    found.remove_classifier()
    found.stem, found.stages = network.stem, nn.ModuleList(list(network.stages)[:n])
    found.mean, found.std = network.mean, network.std
    return found


def rebuild_early_exit(description: Description) -> EarlyExit:
    """The inverse of :meth:`EarlyExit.describe`."""
    trunk = rebuild_student(description["trunk"])
    assert isinstance(trunk, ConvStudent)
    trunk.remove_classifier()
    settings: Mapping[str, int] = description["exit"]
    return EarlyExit(trunk, Exit(**settings))
