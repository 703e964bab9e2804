"""Discriminators: players that tell whose maps or vectors they see, while a network learns to be taken for another.

A discriminator scores high what is another's, the *real*, and low what is the network's own, the *fake*. None has a
BatchNorm: statistics of a batch, all of it real or all of it fake, would give the answer away.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from naskd.knowledge.precision import widened
from naskd.nn.layout import spatial_mean
from naskd.schemes.scheme import CollapsedError

SURE, SAME = 1e-4, 1e-6
"""Below the first, the mean loss of an epoch is that of a discriminator that nobody fools. Below the second, the
standard deviation of its scores is that of one that has stopped to look."""

HIDDEN = 128
"""Units of each hidden layer of a :class:`VectorDiscriminator`."""


class MapDiscriminator(nn.Module):
    """Two 3x3 convolutions of stride 2 and a linear layer: ``(B, C, H, W)`` to scores ``(B, 1)``.

    Args:
        channels: ``C``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.head(spatial_mean(self.layers(x)))
        return scores


class VectorDiscriminator(nn.Module):
    """Three linear layers: ``(B, D)`` to ``(B, n)``.

    Args:
        features: ``D``.
        outputs: ``n``, scores.
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, HIDDEN),
            nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, HIDDEN),
            nn.LeakyReLU(0.2),
            nn.Linear(HIDDEN, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.layers(x)
        return scores


def fixed(module: nn.Module, x: Tensor) -> Tensor:
    """What a player says as it is now: gradients reach `x` and not the player."""
    frozen = {name: parameter.detach() for name, parameter in module.named_parameters()}
    found: Tensor = functional_call(module, frozen, (x,))
    return found


def squares_told(real: Tensor, fake: Tensor) -> Tensor:
    """``(1/B) sum_b (1 - D(real_b))^2 + (1/B) sum_b D(fake_b)^2``: what a least-squares discriminator minimises.

    Mao, Li, Xie, Lau, Wang, Smolley: Least squares generative adversarial networks. ICCV 2017, arXiv 1611.04076.

    Args:
        real: Scores of the other's, of any shape.
        fake: Scores of the network's own.
    """
    return (1 - widened(real)).square().mean() + widened(fake).square().mean()


def squares_fooled(fake: Tensor) -> Tensor:
    """``(1/B) sum_b (1 - D(fake_b))^2``: what a network minimises that wants to be taken for the other."""
    return (1 - widened(fake)).square().mean()


def spread(real: Tensor, fake: Tensor) -> Tensor:
    """Standard deviation of all scores together, detached."""
    return torch.cat((real, fake)).detach().float().std(correction=0)


def check_discriminators(means: Mapping[str, float], names: Sequence[str]) -> None:
    """Whether anything can still be learned from discriminators after an epoch.

    Args:
        means: Of the epoch's terms; of each name its loss, and under ``<name>.spread`` what :func:`spread` found.
        names: Of the discriminators' terms.

    Raises:
        CollapsedError: One is never wrong, or says the same of everything.
    """
    for name in names:
        if means[name] < SURE:
            raise CollapsedError(
                f"{name} has collapsed: it is never fooled, its loss was {means[name]:.2g} in the last epoch; "
                "a smaller discriminator_rate or a larger weight of fooling it may help"
            )
        if means[f"{name}.spread"] < SAME:
            raise CollapsedError(
                f"{name} has collapsed: it says the same of everything, and nothing can be learned from it"
            )
