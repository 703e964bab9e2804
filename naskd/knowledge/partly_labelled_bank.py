"""What a teacher said of epochs in which unlabelled images are among the labelled ones, remembered in two banks.

One bank has the labelled images, an epoch a column, and serves trainings without others too. The other has blocks of
unlabelled images, a block a column. Which blocks an epoch shows is said in :mod:`naskd.data.unlabelled`; trainings with
few and with many of them find the same columns.
"""

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from naskd.knowledge.bank import BankedSource
from naskd.knowledge.base import KnowledgeLoss, Summary, TeacherParts
from naskd.nn.taps import TappedNetwork, Taps, TapShapes
from naskd.store.columns import Column, in_use
from naskd.store.eight_bits import EightBits


class PartlyLabelledBank:
    """Answers for positions of an epoch: first those of the labelled images, then those of one block after the other.

    Args:
        labelled: Bank of the labelled images.
        blocks: Bank of as many unlabelled ones a column, of the same network.
        unlabelled: Blocks of an epoch, at least 1.

    Attributes:
        asked_images: Images that somebody wanted to know something about so far.
    """

    def __init__(self, labelled: BankedSource, blocks: BankedSource, unlabelled: int) -> None:
        self.banks = (labelled, blocks)
        self.unlabelled = unlabelled
        self.source = labelled.source
        self.asked_images = 0
        self._wanted: Hashable = None
        self._parts: list[dict[str, Column]] = []
        self._whole: dict[str, Column] = {}

    @property
    def network(self) -> TappedNetwork:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.source.network

    @property
    def shapes(self) -> TapShapes:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.source.shapes

    @property
    def parts(self) -> TeacherParts:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.source.parts

    @property
    def learns(self) -> bool:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.source.learns

    @property
    def macs(self) -> int:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return self.source.macs

    @property
    def forward_images(self) -> int:
        """Images that the network was really run on so far."""
        return self.source.forward_images

    @property
    def bank_id(self) -> str:
        """Of the unlabelled images' bank; see :attr:`banks` for both."""
        return self.banks[1].bank_id

    @property
    def size_bytes(self) -> int:
        """Of both banks."""
        return sum(bank.size_bytes for bank in self.banks)

    def remembers(self, losses: Sequence[KnowledgeLoss]) -> bool:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        return all(bank.remembers(losses) for bank in self.banks)

    def summaries(
        self, images: Tensor, index: Tensor | None, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`; `index` is of positions of the epoch."""
        if not losses:
            return []
        self.asked_images += len(images)
        if index is None:
            return self.source.summaries(images, None, epoch, losses)
        names = [self.banks[0].names_of(loss) for loss in losses]
        self._fill(epoch, losses, tuple(name for mine in names for name in mine))
        is_banked = [all(name in part for name in mine for part in self._parts) for mine in names]
        online = [loss for loss, banked in zip(losses, is_banked, strict=True) if not banked]
        asked = iter(self.source.summaries(images, index, epoch, online) if online else ())
        wanted = dict.fromkeys(
            n for mine, banked in zip(names, is_banked, strict=True) if banked for n in mine
        )
        found = self._rows(tuple(wanted), index, epoch)
        return [
            {name: found[name] for name in mine} if banked else next(asked)
            for mine, banked in zip(names, is_banked, strict=True)
        ]

    def taps(self, images: Tensor) -> Taps:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        self.asked_images += len(images)
        return self.source.taps(images)

    def _fill(self, epoch: int, losses: Sequence[KnowledgeLoss], names: tuple[str, ...]) -> None:
        """Have the columns of an epoch, once for all of its batches."""
        if self._wanted == (epoch, names):
            return
        labelled, blocks = self.banks
        first = epoch * self.unlabelled
        self._whole = {}
        self._parts = [
            labelled.filled(epoch, losses),
            *(blocks.filled(block, losses) for block in range(first, first + self.unlabelled)),
        ]
        self._wanted = (epoch, names)

    def _rows(self, names: Sequence[str], index: Tensor, epoch: int) -> Mapping[str, Tensor]:
        if self.source.device.type == "cpu":
            places = places_in(index, self.banks[0].n_samples, len(self._parts))
            return {name: gathered([part[name] for part in self._parts], index, places) for name in names}
        # On a device, which is never waited for within an epoch, a position may be of any of the parts.
        for name in names:
            if name not in self._whole:
                self._whole[name] = joined([part[name] for part in self._parts])
        mine = (*(bank.key for bank in self.banks), self.unlabelled, epoch)
        held = self.banks[0].copies.of({(mine, name): self._whole[name] for name in names})
        return {name: in_use(values, index) for (_, name), values in held.items()}


def gathered(columns: Sequence[Column], index: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Rows of columns that stay where they are: files that are mapped into memory.

    Args:
        columns: Of one name and of as many samples each, one after the other.
        index: ``(B,)`` positions in all of them together.
        places: See :func:`places_in`.
    """
    n = len(columns[0])
    found = [
        in_use(column, index[mine] - number * n)
        for number, (column, mine) in enumerate(zip(columns, places, strict=True))
        if len(mine)
    ]
    return torch.cat(found)[torch.cat(list(places)).argsort()]


def places_in(index: Tensor, n: int, n_columns: int) -> list[Tensor]:
    """Which of the positions ``(B,)`` are in each of so many columns of `n` samples; the device is waited for."""
    return [(index // n == number).nonzero().flatten() for number in range(n_columns)]


def joined(columns: Sequence[Column]) -> Column:
    """Columns of one name one after the other, in memory."""
    packed = [column for column in columns if isinstance(column, EightBits)]
    if packed:
        return EightBits(
            torch.cat([column.codes for column in packed]), torch.cat([column.ranges for column in packed])
        )
    plain = [column for column in columns if isinstance(column, Tensor)]
    if plain[0].ndim != 4:
        return torch.cat(plain)
    # Of maps the numbers lie in another order than their dimensions.
    return torch.cat([column.movedim(1, -1) for column in plain]).movedim(-1, 1)
