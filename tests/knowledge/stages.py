"""Given maps as stages of networks, for losses on pairs of stages."""

import torch
from torch import Tensor, nn

from naskd.knowledge.base import KnowledgeLoss, Lesson
from naskd.knowledge.paired import PairedLoss
from naskd.nn.taps import Tap, Taps


def maps(*size: int, seed: int = 0) -> Tensor:
    """Normal values in float64."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def showing(*stages: Tensor) -> Taps:
    """Taps of a network with these maps as its stages and as its pre-activations."""
    taps = tuple(Tap(x, "map", (i + 1) / len(stages)) for i, x in enumerate(stages))
    return Taps(stages[0].new_zeros(len(stages[0]), 5), taps, taps, stages[-1].mean((2, 3)))


def term(loss: KnowledgeLoss, student: Taps, teacher: Taps) -> Tensor:
    """What a loss says of a batch."""
    labels = torch.zeros(len(student.logits), dtype=torch.long)
    return loss(student, loss.summarise(teacher), Lesson(labels, labels)).term


def with_identities(loss: PairedLoss) -> PairedLoss:
    """The loss with adapters that change nothing."""
    for adapter in loss.adapters:
        assert isinstance(adapter, nn.Conv2d)
        with torch.no_grad():
            adapter.weight.copy_(torch.eye(adapter.out_channels, adapter.in_channels)[:, :, None, None])
            assert adapter.bias is not None
            adapter.bias.zero_()
    return loss
