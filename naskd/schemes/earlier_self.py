"""A student as it was: what schemes share in which it is its own teacher.

Who teaches is in evaluation mode and gets no gradient. It is asked as teachers are, before the step. Its pass is in
``forward_macs``.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from naskd.knowledge.base import Summary
from naskd.nn.taps import evaluation_mode
from naskd.schemes.objective import ASKED
from naskd.schemes.scheme import Asked, Phase


class EarlierSelf(nn.Module):
    """A frozen copy of a network. A scheme that holds it has its weights in its state, and no optimizer of them.

    Args:
        network: Copied as it is now; see :meth:`take`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)

    def take(self, network: nn.Module) -> None:
        """Become what `network` is now."""
        self.network.load_state_dict(network.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        """See :func:`earlier_logits`."""
        return earlier_logits(self.network, images)


def earlier_logits(network: nn.Module, images: Tensor) -> Tensor:
    """``(B, K)`` of a network in evaluation mode, whatever its mode, without gradients."""
    with evaluation_mode(network), torch.no_grad():
        logits: Tensor = network(images)
        return logits


def heard_too(asked: Asked, said: Summary) -> Asked:
    """What teachers of the study said, and after them what the student's earlier self said."""
    return [*asked, said]


def asked_online(phase: Phase) -> Phase:
    """The same phase, asking about no more images at once than a network in memory can be asked about."""
    return replace(phase, ask_images=min(phase.ask_images, ASKED["online"]))


def equal_parts(epochs: int, parts: int) -> Sequence[int]:
    """Lengths of so many parts, which differ by 1 at most and add up; fewer where there are fewer epochs.

    Args:
        epochs: At least 1.
        parts: At least 1.
    """
    parts = min(parts, epochs)
    ends = [epochs * (i + 1) // parts for i in range(parts)]
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
