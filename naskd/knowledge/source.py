"""Where knowledge comes from during a training: a network, asked once a batch for all losses together."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from naskd.knowledge.adapters import tap_mean
from naskd.knowledge.base import NO_PARTS, KnowledgeLoss, Summary, TeacherParts, summary_of
from naskd.knowledge.precision import widened
from naskd.nn.deployed import DeployedNetwork, as_deployed, linear_head
from naskd.nn.taps import TappedNetwork, Taps, TapShapes, device_of, tap_shapes
from naskd.spec.sizes import Size

_ROUNDING = 1e-3
"""Share of the largest feature by which two means of the same map may differ."""


class KnowledgeSource(Protocol):
    """Answers what the losses keep of a teacher.

    A bank answers from memory, a network by a forward pass, a peer from the pass that it was trained in.
    """

    @property
    def network(self) -> TappedNetwork:
        """Who teaches."""

    @property
    def shapes(self) -> TapShapes:
        """Of the teacher's taps."""

    @property
    def parts(self) -> TeacherParts:
        """Weights of the teacher that some losses read, as they are now."""

    @property
    def learns(self) -> bool:
        """Whether they move while the student trains."""

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
        self, images: Tensor, index: Tensor | None, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """One summary a loss, for the same batch; without gradients.

        Args:
            images: ``(B, C, H, W)`` in [0, 1], as the student sees them.
            index: ``(B,)`` positions in the training split; None for images that are not of it, of which nothing is
                remembered.
            epoch: From 0; with the index it says which views the images are, so that an answer can be remembered.
            losses: Whom the answers are for.
        """

    def taps(self, images: Tensor) -> Taps:
        """All that the teacher shows of any images, from a forward pass of now, which is counted.

        Gradients reach the images, and what made them: a generator learns so from a fixed teacher.
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
        self.learns = False
        self.bank_id = ""
        self.size_bytes = 0
        self.device = device_of(network)

    @property
    def asked_images(self) -> int:
        """All images asked for are run."""
        return self.forward_images

    def remembers(self, losses: Sequence[KnowledgeLoss]) -> bool:
        """Not if anything is asked."""
        return not losses

    def summaries(
        self, images: Tensor, index: Tensor | None, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """See :class:`KnowledgeSource`."""
        with torch.no_grad():
            taps = self.taps(images)
            return [summary_of(loss, taps) for loss in losses]

    def taps(self, images: Tensor) -> Taps:
        """See :class:`KnowledgeSource`."""
        self.forward_images += len(images)
        return self.network.taps(images)


@dataclass(frozen=True)
class TapsSource:
    """A network that trains beside the student, heard through taps that are computed already.

    Losses are built for it before there are any; in each step, what it showed of the batch is given by :meth:`of`. Its
    forward pass belongs to its own training, and costs nothing here.

    Args:
        network: The peer.
        shapes: Of its taps.
        shown: Taps of the batch; None before there is one.
        detached: What the student minimises does not reach the peer. Otherwise it does, through losses whose summary
            keeps its gradient; those of the catalogue do not.
    """

    network: TappedNetwork
    shapes: TapShapes
    shown: Taps | None = None
    detached: bool = True
    learns: bool = True
    macs: int = 0
    asked_images: int = 0
    forward_images: int = 0
    bank_id: str = ""
    size_bytes: int = 0

    @staticmethod
    def beside(network: nn.Module, in_channels: int, resolution: Size) -> "TapsSource":
        """Of a network on images of that size; nothing is trained, drawn or kept."""
        shapes = tap_shapes(network, in_channels, resolution)
        assert isinstance(network, TappedNetwork)
        return TapsSource(network, shapes)

    @property
    def parts(self) -> TeacherParts:
        """Of the peer as it is now."""
        assert isinstance(self.network, nn.Module)
        return teacher_parts(as_deployed(self.network))

    def of(self, taps: Taps) -> "TapsSource":
        """The same peer, and what it showed of a batch."""
        return replace(self, shown=taps)

    def remembers(self, losses: Sequence[KnowledgeLoss]) -> bool:
        """Not if anything is asked."""
        return not losses

    def summaries(
        self, images: Tensor, index: Tensor | None, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """See :class:`KnowledgeSource`; of the taps that were given, whatever the images."""
        if self.shown is None:
            raise ValueError("a peer is heard through the taps of its own step: give them with TapsSource.of")
        with torch.no_grad() if self.detached else nullcontext():
            return [summary_of(loss, self.shown) for loss in losses]

    def taps(self, images: Tensor) -> Taps:
        """A forward pass of its own, which whoever asks for it counts."""
        return self.network.taps(images)


def teacher_parts(network: DeployedNetwork, images: Tensor | None = None) -> TeacherParts:
    """Copies of the weights that losses may read, as they are now.

    Args:
        network: In evaluation mode, where images are given.
        images: ``(B, C, H, W)`` in [0, 1] by which it is seen what the classifier reads; None: nobody looks.
    """
    head = linear_head(network)
    return TeacherParts(
        head=None
        if head is None
        else (
            head.weight.detach().clone(),
            (head.weight.new_zeros(head.out_features) if head.bias is None else head.bias.detach().clone()),
        ),
        norms=tuple(
            None
            if norm is None or norm.weight is None
            else (norm.bias.detach().clone(), norm.weight.detach().clone())
            for norm in network.pre_activation_norms()
        ),
        head_reads_mean=head is None or images is None or _reads_mean(network, images),
    )


@torch.no_grad()
def _reads_mean(network: DeployedNetwork, images: Tensor) -> bool:
    taps = network.taps(images)
    if not taps.stages:
        return False
    mean, pooled = tap_mean(taps.stages[-1]), widened(taps.pooled)
    if mean.shape != pooled.shape:
        return False
    return bool((mean - pooled).abs().max() <= _ROUNDING * pooled.abs().max())
