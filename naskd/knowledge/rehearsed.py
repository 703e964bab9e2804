"""Who answers a training that is only timed: as a bank would once it is full, at the price of a few questions."""

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from naskd.knowledge.bank import BankedSource
from naskd.knowledge.base import KnowledgeLoss, Summary, TeacherParts
from naskd.nn.taps import TappedNetwork, Taps, TapShapes
from naskd.store.columns import at_rest, in_use


class RehearsedSource:
    """Answers a question that comes again from memory, where a bank would remember it; else by its network.

    A search runs a teacher once for each view of an image, and trains many students with what it said. So what is asked
    for the first time is timed apart, and what is asked again costs what it costs in a search.

    Args:
        bank: Made as a search makes it. It is never filled: what it would remember is asked of it.
        n_images: That the search will run the network on to fill the banks.
        blocks: Of unlabelled images, likewise; None without any.

    Attributes:
        seconds_per_image: Of the network, the fastest that was seen; infinite before it was asked anything that is
            remembered.
        full_bytes: Of the banks once they are full, by the names of their tensors, those of unlabelled images after
            ``unlabelled/``; of those that were asked for so far.
    """

    def __init__(self, bank: BankedSource, n_images: int, blocks: BankedSource | None = None) -> None:
        self.bank = bank
        self.banks = {"": bank} if blocks is None else {"": bank, "unlabelled/": blocks}
        self.n_images = n_images
        self.seconds_per_image = math.inf
        self.full_bytes: dict[str, int] = {}
        self._said: dict[tuple[int, bytes, str], Tensor] = {}

    @property
    def network(self) -> TappedNetwork:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.bank.network

    @property
    def shapes(self) -> TapShapes:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.bank.shapes

    @property
    def parts(self) -> TeacherParts:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.bank.parts

    @property
    def learns(self) -> bool:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.bank.learns

    @property
    def macs(self) -> int:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.bank.macs

    @property
    def asked_images(self) -> int:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.bank.asked_images

    @property
    def forward_images(self) -> int:
        """Images that the network was really run on so far."""
        return self.bank.forward_images

    @property
    def bank_id(self) -> str:
        """Empty: nothing is shared."""
        return ""

    @property
    def size_bytes(self) -> int:
        """0: nothing is kept."""
        return 0

    def remembers(self, losses: Sequence[KnowledgeLoss]) -> bool:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return all(bank.remembers(losses) for bank in self.banks.values())

    def foresee(self, losses: Sequence[KnowledgeLoss]) -> None:
        """Count what losses that may be asked would have the banks keep."""
        for prefix, bank in self.banks.items():
            self.full_bytes |= {prefix + name: n for name, n in bank.full_bytes(losses).items()}

    def taps(self, images: Tensor) -> Taps:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.bank.taps(images)

    def summaries(
        self, images: Tensor, index: Tensor | None, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        if index is None:
            return self.bank.summaries(images, None, epoch, losses)
        if self.bank.own_images:
            images = self.bank.images(index, epoch)
        kept = [loss for loss in losses if self.remembers([loss])]
        online = [loss for loss in losses if loss not in kept]
        said = iter(self.bank.source.summaries(images, index, epoch, online) if online else ())
        remembered = iter(self._remembered(images, index, epoch, kept) if kept else ())
        return [next(remembered) if loss in kept else next(said) for loss in losses]

    def _remembered(
        self, images: Tensor, index: Tensor, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        which = epoch, index.cpu().numpy().tobytes()
        names = [self.bank.names_of(loss) for loss in losses]
        self.foresee(losses)
        if any((*which, name) not in self._said for mine in names for name in mine):
            for _ in range(2):  # the first time a kernel is chosen, and memory is found
                said = self._timed(images, index, epoch, losses)
            for summary in said:
                for name, tensor in summary.items():
                    self._said[*which, name] = at_rest(tensor.cpu()).to(tensor.device)
        rows = torch.arange(len(images), device=index.device)
        return [{name: in_use(self._said[*which, name], rows) for name in mine} for mine in names]

    def _timed(
        self, images: Tensor, index: Tensor, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        self._wait()
        started = time.perf_counter()
        said = self.bank.source.summaries(images, index, epoch, losses)
        self._wait()
        seconds = (time.perf_counter() - started) / len(images)
        self.seconds_per_image = min(seconds, self.seconds_per_image)
        return said

    def _wait(self) -> None:
        if self.bank.device.type == "cuda":
            torch.cuda.synchronize(self.bank.device)
