"""Where knowledge comes from during a training: a network, asked once a batch for all losses together."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from naskd.knowledge.base import NO_PARTS, KnowledgeLoss, Summary, TeacherParts
from naskd.nn.taps import TappedNetwork, TapShapes


class KnowledgeSource(Protocol):
    """Answers what the losses keep of a teacher. A bank answers from memory, a network by a forward pass."""

    @property
    def shapes(self) -> TapShapes:
        """Of the teacher's taps."""

    @property
    def parts(self) -> TeacherParts:
        """Weights of the teacher that some losses read."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one image."""

    @property
    def asked_images(self) -> int:
        """Images that somebody wanted to know something about so far."""

    @property
    def forward_images(self) -> int:
        """Images that a network was really run on so far."""

    @property
    def bank_id(self) -> str:
        """Of what is remembered, the same for all who share it; empty where nothing is shared."""

    @property
    def size_bytes(self) -> int:
        """Of what is remembered; 0 where nothing is."""

    def remembers(self, losses: Sequence[KnowledgeLoss]) -> bool:
        """Whether all answers for `losses` come from memory, once they were given."""

    def summaries(
        self, images: Tensor, index: Tensor, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """One summary a loss, for the same batch.

        Args:
            images: ``(B, C, H, W)`` in [0, 1], as the student sees them.
            index: ``(B,)`` positions in the training split.
            epoch: From 0; with the index it says which views the images are, so that an answer can be remembered.
            losses: Whom the answers are for.
        """


class OnlineSource:
    """A frozen network, run at every step.

    Args:
        network: In evaluation mode, without gradients, on the right device.
        shapes: Of its taps.
        macs: Of one forward pass of one image.
        parts: Of the network.
    """

    def __init__(
        self, network: nn.Module, shapes: TapShapes, macs: int, parts: TeacherParts = NO_PARTS
    ) -> None:
        assert isinstance(network, TappedNetwork)
        self.network: TappedNetwork = network
        self.shapes = shapes
        self.macs = macs
        self.parts = parts
        self.forward_images = 0
        self.bank_id = ""
        self.size_bytes = 0
        self.device = next(network.parameters()).device

    @property
    def asked_images(self) -> int:
        """All images asked for are run."""
        return self.forward_images

    def remembers(self, losses: Sequence[KnowledgeLoss]) -> bool:
        """Not if anything is asked."""
        return not losses

    def summaries(
        self, images: Tensor, index: Tensor, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """See :class:`KnowledgeSource`."""
        self.forward_images += len(images)
        with torch.no_grad():
            taps = self.network.taps(images)
            return [loss.summarise(taps) for loss in losses]
