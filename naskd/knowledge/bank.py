"""Teacher outputs remembered between epochs and trials, so that a teacher is not run again for an image it has seen.

Views are enumerated, and which view of a sample an epoch shows is fixed for a study. Epoch ``e`` therefore
asks for the same *column* of knowledge in every trial: view ``pi(sample)[e mod V]`` of each sample. A column is
filled whole, in the order of the samples and in batches of one size, the first time any trial meets it: what is
remembered does not depend on who asked first, and a hit needs no look-up that would wait for the device.

Columns rest in half precision where it holds them, maps that are too large for that in 8 bits and in files alone, and
losses see float32: what a miss returns has been rounded like what a hit returns. With a folder, columns are files,
mapped into memory and shared by all processes of a machine. The folder is named by everything that its content depends
on, so that nothing in it is ever out of date.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import KnowledgeLoss, Summary, summary_of
from naskd.knowledge.filling import Gathering
from naskd.knowledge.source import OnlineSource
from naskd.nn.taps import TappedNetwork, Taps, taps_like
from naskd.spec.design import KnowledgeTerm
from naskd.spec.errors import USERS, InputError
from naskd.store.columns import Column, ColumnFolder, Likeness, in_use
from naskd.store.device_copies import DeviceCopies
from naskd.store.eight_bits import pays

_LOG = logging.getLogger(__name__)

COMPARED = 8
"""Images of a column by which it is seen that losses keep the same under one name."""

FAR = 0.1
"""Share of a sample's largest value by which no rounding puts a value off."""

FILL_BATCH = 256
"""Images a forward pass when a column is filled. A constant, since the last bits of a convolution depend on it."""


class _Foreseen:
    """A loss that nobody asks with now: where it fails, nothing is remembered for it, and who asks with it is told.

    Args:
        loss: What others are likely to ask with.
    """

    def __init__(self, loss: KnowledgeLoss) -> None:
        self._loss = loss

    @property
    def settings(self) -> KnowledgeTerm:
        """Of the loss."""
        return self._loss.settings

    def summarise(self, teacher: Taps) -> Summary:
        """See :class:`~naskd.knowledge.base.KnowledgeLoss`; empty where that fails."""
        try:
            summary = self._loss.summarise(teacher)
            return summary if all(isinstance(tensor, Tensor) for tensor in summary.values()) else {}
        except USERS:
            return {}


class BankedSource:
    """A network whose answers on the training split are remembered.

    A summary tensor is banked when all its columns, at rest, fit into `budget_bytes`, or, of maps in 8 bits, into
    `disk_bytes`. That depends on shapes alone, never on what was asked before; a loss with a tensor that does not fit
    gets an online forward pass. So does one whose column the disk has no room for, which is said.

    Args:
        source: Who answers what is not remembered.
        images: Gives the images ``(B, C, H, W)`` that an epoch shows of samples ``(B,)``.
        n_samples: Of the training split.
        n_views: Views of a sample; epoch ``e`` asks for column ``e mod n_views``.
        n_epochs: Of the longest training that asks, which bounds how many columns there will be.
        budget_bytes: For each tensor of a summary; 0 asks the network always.
        foreseen: Losses that other trainings are likely to ask with; what they keep is filled in the same pass.
        folder: Of this source on these views, for all processes of the machine; None remembers in memory.
        disk_bytes: For each tensor of maps that is larger than `budget_bytes`, in `folder` and in 8 bits; 0 banks none.
        own_images: The network sees other images of the samples than the students who ask, who see a second modality:
            what is not remembered is asked about `images` too, never about theirs.
        copies: On the network's device, shared with other banks; None makes some.

    Attributes:
        asked_images: Images that somebody wanted to know something about so far.
        key: Stands for this bank where copies of its columns are kept. Its address would not do: when it is gone,
            another bank may have it, and would be given these copies.
    """

    def __init__(
        self,
        source: OnlineSource,
        images: Callable[[Tensor, int], Tensor],
        n_samples: int,
        n_views: int,
        n_epochs: int,
        budget_bytes: int = 2**30,
        foreseen: Sequence[KnowledgeLoss] = (),
        folder: Path | None = None,
        copies: DeviceCopies | None = None,
        disk_bytes: int = 0,
        own_images: bool = False,
    ) -> None:
        self.source = source
        self.own_images = own_images
        self.shapes = source.shapes
        self.macs = source.macs
        self.parts = source.parts
        self.learns = source.learns
        self.images = images
        self.n_samples = n_samples
        self.n_views = n_views
        self.n_columns = min(n_views, n_epochs)
        self.budget_bytes = budget_bytes
        self.disk_bytes = 0 if folder is None or budget_bytes == 0 else disk_bytes
        self.foreseen = tuple(foreseen)
        self._others = tuple(cast(KnowledgeLoss, _Foreseen(loss)) for loss in foreseen)
        self.folder = folder
        self.copies = copies if copies is not None else DeviceCopies(source.device, budget_bytes)
        self.asked_images = 0
        self.key: Hashable = object()
        self.bank_id = "" if folder is None else folder.name
        self._files = None if folder is None else ColumnFolder(folder)
        self._columns: dict[tuple[str, int], Column] = {}
        self._like: dict[str, Likeness] = {}
        self._fits: dict[str, bool] = {}
        self._refused: dict[str, int] = {}
        """Epochs in which the disk had no room for a tensor: it is tried again in another."""
        self._ahead = -1
        self._known: WeakKeyDictionary[KnowledgeLoss, list[str]] = WeakKeyDictionary()
        self._agree: WeakSet[KnowledgeLoss] = WeakSet()
        """Losses that keep what is remembered under their names."""

    @property
    def network(self) -> TappedNetwork:
        """Who answers what is not remembered."""
        return self.source.network

    @property
    def device(self) -> torch.device:
        """Where the network is, and what it says."""
        return self.source.device

    @property
    def forward_images(self) -> int:
        """Images that the network was really run on so far."""
        return self.source.forward_images

    @property
    def size_bytes(self) -> int:
        """Of the columns that this process has met, in files or in memory."""
        return sum(column.nbytes for column in self._columns.values())

    def full_bytes(self, losses: Sequence[KnowledgeLoss]) -> dict[str, int]:
        """What the bank holds once it is full, in bytes of all columns, by the names of the tensors that are kept.

        Args:
            losses: That ask; what is foreseen is filled beside what they keep.
        """
        mine = [self.names_of(loss) for loss in losses]
        kept = [name for names in mine if all(self._fits[name] for name in names) for name in names]
        if kept:
            kept += [name for loss in self._others for name in self.names_of(loss) if self._fits[name]]
        return {name: self._like[name].nbytes * self.n_columns for name in kept}

    def remembers(self, losses: Sequence[KnowledgeLoss]) -> bool:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        names = [name for loss in losses for name in self.names_of(loss)]
        return all(self._fits[name] and name not in self._refused for name in names)

    def summaries(
        self, images: Tensor, index: Tensor | None, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        self.asked_images += len(images) if losses else 0
        if index is None:
            self._check_seen()
            return self.source.summaries(images, None, epoch, losses) if losses else []
        names, column = [self.names_of(loss) for loss in losses], epoch % self.n_views
        self.filled(epoch, losses)
        is_banked = [all((name, column) in self._columns for name in wanted) for wanted in names]
        online = [loss for loss, banked in zip(losses, is_banked, strict=True) if not banked]
        if online and self.own_images:
            images = self.images(index, epoch)
        asked = iter(self.source.summaries(images, index, epoch, online) if online else ())
        wanted = {name for mine, banked in zip(names, is_banked, strict=True) if banked for name in mine}
        held = self.copies.of({(self.key, name, column): self._columns[name, column] for name in wanted})
        self._look_ahead(epoch, wanted)
        found = {name: in_use(values, index) for (_, name, _), values in held.items()}
        return [
            {name: found[name] for name in mine} if banked else next(asked)
            for mine, banked in zip(names, is_banked, strict=True)
        ]

    def filled(self, epoch: int, losses: Sequence[KnowledgeLoss]) -> dict[str, Column]:
        """The columns of an epoch that `losses` ask for, by the names of their tensors; those that are kept."""
        column = epoch % self.n_views
        self._fill(column, epoch, losses)
        for loss in losses:
            if loss not in self._agree:
                self._check_agrees(loss, column, epoch)
        names = {name for loss in losses for name in self.names_of(loss)}
        return {name: self._columns[name, column] for name in names if (name, column) in self._columns}

    def _check_agrees(self, loss: KnowledgeLoss, column: int, epoch: int) -> None:
        """See that a loss that is not naskd's keeps, with its settings, what another trial may have remembered.

        Raises:
            InputError: It does not.
        """
        there = [name for name in self.names_of(loss) if (name, column) in self._columns]
        if there and not KNOWLEDGE.is_ours(loss.settings.kind):
            first = torch.arange(min(COMPARED, self.n_samples))
            (said,) = self.source.summaries(self.images(first, epoch), first, epoch, [loss])
            for name in there:
                if not _alike(in_use(self._columns[name, column], first), said[name].cpu()):
                    raise InputError(
                        f"knowledge {loss.settings.kind!r}: summarise keeps other values under the name {name!r} than "
                        "are remembered of another loss, or of other settings; give each its own name"
                    )
        self._agree.add(loss)

    def taps(self, images: Tensor) -> Taps:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        self._check_seen()
        self.asked_images += len(images)
        return self.source.taps(images)

    def _check_seen(self) -> None:
        """Images that have no position have no first modality that is known."""
        if self.own_images:
            raise InputError(
                "a teacher of another modality than the students' is asked about images that are not of the training "
                "split, and nobody knows how it would see them"
            )

    def names_of(self, loss: KnowledgeLoss) -> list[str]:
        """Names of a loss's summary tensors; notes on the way what they look like, and which of them fit."""
        if loss in self._known:
            return self._known[loss]
        with torch.device("meta"):
            summary = summary_of(loss, taps_like(self.shapes, 1, "meta"))
        for name, tensor in summary.items():
            shape = (self.n_samples, *tensor.shape[1:])
            half = Likeness(shape, tensor.dtype)
            self._like[name] = half
            self._fits[name] = half.nbytes * self.n_columns <= self.budget_bytes
            if not self._fits[name] and pays(shape, tensor.dtype):
                packed = Likeness(shape, tensor.dtype, eight_bits=True)
                if packed.nbytes * self.n_columns <= self.disk_bytes:
                    self._like[name], self._fits[name] = packed, True
        self._known[loss] = list(summary)
        return self._known[loss]

    def _missing(self, column: int, epoch: int, losses: Iterable[KnowledgeLoss]) -> list[str]:
        """Tensors that `losses` keep and that are not there; none of a loss that does not fit as a whole."""
        names = [self.names_of(loss) for loss in losses]
        whole = [name for mine in names if all(self._fits[name] for name in mine) for name in mine]
        return self._absent(column, epoch, whole)

    def _foreseen(self, column: int, epoch: int) -> list[str]:
        """The same of what others are likely to ask for, one by one."""
        return self._absent(column, epoch, [name for loss in self._others for name in self.names_of(loss)])

    def _absent(self, column: int, epoch: int, names: Iterable[str]) -> list[str]:
        return [
            name
            for name in dict.fromkeys(names)
            if self._fits[name] and (name, column) not in self._columns and self._refused.get(name) != epoch
        ]

    def _fill(self, column: int, epoch: int, losses: Sequence[KnowledgeLoss]) -> None:
        """Have all tensors of a column that `losses` keep, and with them those that are foreseen."""
        if not self._missing(column, epoch, losses):
            return
        if self._files is None:
            self._columns.update(self._pass_over(column, epoch, losses))
            return
        try:
            with self._files.locked(column):
                self._map(column, self._missing(column, epoch, losses) + self._foreseen(column, epoch))
                if self._missing(column, epoch, losses):
                    filled = self._pass_over(column, epoch, losses)
                    self._columns.update(filled)
                    packed = [name for name, like in self._like.items() if like.eight_bits]
                    self._map(column, packed)
                    self._write(filled)
                    for name in self._missing(column, epoch, losses):
                        if name in packed:  # never once a batch
                            self._refuse(name, epoch, OSError("it was written, and cannot be read back"))
        except OSError as error:
            _LOG.warning("what the teacher said is kept in memory alone: %s", error)
            for name, like in self._like.items():
                if like.eight_bits and (name, column) not in self._columns:
                    self._refuse(name, epoch, error)
            if self._missing(column, epoch, losses):
                self._columns.update(self._pass_over(column, epoch, losses))

    def _pass_over(
        self, column: int, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> dict[tuple[str, int], Tensor]:
        """One pass of the network over the images of the column, for all that is still missing.

        Returns:
            What is to be kept in memory, or to be written. What rests in 8 bits is in files.
        """
        gathering = Gathering(self._files, column, self._like, self.n_samples)
        needed = gathering.begin(self._missing(column, epoch, losses))
        try:
            if needed:
                kept = needed | gathering.begin(n for n in self._foreseen(column, epoch) if n not in needed)
                asking = [
                    loss for loss in (*losses, *self._others) if not kept.isdisjoint(self.names_of(loss))
                ]
                self._run(gathering, kept, epoch, asking)
            found = gathering.end()
        finally:
            gathering.forget()
        for name, error in gathering.refused.items():
            self._refuse(name, epoch, error)
        return {(name, column): values for name, values in found.items()}

    def _run(self, gathering: Gathering, kept: set[str], epoch: int, losses: Sequence[KnowledgeLoss]) -> None:
        for number, chunk in enumerate(torch.split(torch.arange(self.n_samples), FILL_BATCH)):
            images = self.images(chunk, epoch)
            found: dict[str, Tensor] = {}
            said = self.source.summaries(images, chunk, epoch, losses)
            if number == 0:
                _check_names(losses, said)
            for summary in said:
                found.update({name: tensor for name, tensor in summary.items() if name in kept})
            for name, tensor in found.items():
                if name not in gathering.refused:
                    gathering.add(name, tensor)

    def _map(self, column: int, names: Iterable[str]) -> None:
        """Take what other processes, or earlier ones, have written of a column."""
        assert self._files is not None
        for name in names:
            if (name, column) not in self._columns:
                mapped = self._files.read(name, column, self._like[name])
                if mapped is not None:
                    self._columns[name, column] = mapped

    def _write(self, filled: Mapping[tuple[str, int], Tensor]) -> None:
        """Leave columns for others, and use them from there: mapped memory is shared."""
        assert self._files is not None
        for (name, column), values in filled.items():
            self._files.write(name, column, values)
            mapped = self._files.read(name, column, self._like[name])
            if mapped is not None:
                self._columns[name, column] = mapped

    def _look_ahead(self, epoch: int, names: set[str]) -> None:
        """Have the next epoch's columns on the device before they are asked for, as far as they are filled."""
        column = (epoch + 1) % self.n_views
        if not self.copies.looks_ahead or not names or self._ahead == column:
            return
        self._ahead = column

        def load() -> dict[Hashable, Column]:
            if self._files is not None:
                self._map(column, names)
            there = [name for name in names if (name, column) in self._columns]
            return {(self.key, name, column): self._columns[name, column] for name in there}

        self.copies.ahead(load)

    def _refuse(self, name: str, epoch: int, error: OSError) -> None:
        if name not in self._refused:
            _LOG.warning(
                "the teacher is asked at every step for %s, which is too large for memory, in some epochs: %s; its "
                "answers are then not rounded, so that results may differ in their last digits from those with room",
                name,
                error,
            )
        self._refused[name] = epoch


def _alike(kept: Tensor, said: Tensor) -> bool:
    """Whether what is remembered of some samples is what a loss says of them, but for rounding and small batches."""
    if kept.shape != said.shape or not said.is_floating_point():
        return torch.equal(kept, said)
    one, other = (tensor.double().nan_to_num().reshape(len(tensor), -1) for tensor in (kept, said))
    largest = torch.maximum(one.abs(), other.abs()).amax(1)
    return bool(((one - other).abs().amax(1) <= FAR * largest).all())


def _check_names(losses: Sequence[KnowledgeLoss], said: Sequence[Summary]) -> None:
    """See that a name is one tensor, whoever keeps it: else one loss would be given what another has kept.

    Raises:
        InputError: Two losses keep different values under one name.
    """
    first: dict[str, tuple[KnowledgeLoss, Tensor]] = {}
    for loss, summary in zip(losses, said, strict=True):
        for name, tensor in summary.items():
            tensor = tensor[:COMPARED]
            other, known = first.setdefault(name, (loss, tensor))
            same = known.shape == tensor.shape and (
                torch.allclose(known.to(tensor.dtype), tensor, rtol=1e-3, atol=1e-6, equal_nan=True)
                if tensor.is_floating_point()
                else torch.equal(known, tensor)
            )
            if not same:
                kinds = " and ".join(dict.fromkeys(repr(each.settings.kind) for each in (other, loss)))
                raise InputError(
                    f"knowledge {kinds}: summarise keeps different values under the name {name!r}, by which they are "
                    "remembered for all losses; give each its own name"
                )
