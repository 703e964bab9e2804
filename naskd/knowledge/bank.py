"""Teacher outputs remembered between epochs and trials, so that a teacher is not run again for an image it has seen.

Views are enumerated, and which view of a sample an epoch shows is fixed for a study. Epoch ``e`` therefore
asks for the same *column* of knowledge in every trial: view ``pi(sample)[e mod V]`` of each sample. A column is
filled whole, in the order of the samples and in batches of one size, the first time any trial meets it: what is
remembered does not depend on who asked first, and a hit needs no look-up that would wait for the device.

With a folder, columns are files, mapped into memory and shared by all processes of a machine. A file appears whole or
not at all, and its folder is named by everything that its content depends on, so that none is ever out of date.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from filelock import FileLock
from torch import Tensor

from naskd.knowledge.base import KnowledgeLoss, Summary
from naskd.knowledge.source import OnlineSource
from naskd.taps import taps_like

_LOG = logging.getLogger(__name__)

FILL_BATCH = 256
"""Images a forward pass when a column is filled. A constant, since the last bits of a convolution depend on it."""


class BankedSource:
    """A network whose answers on the training split are remembered in memory, in the precision they were computed in.

    A summary tensor is banked when all its columns fit into `budget_bytes`, which depends on shapes alone,
    never on what was asked before; a loss with a tensor that does not fit gets an online forward pass.

    Args:
        source: Who answers what is not remembered.
        images: Gives the images ``(B, C, H, W)`` that an epoch shows of samples ``(B,)``.
        n_samples: Of the training split.
        n_views: Views of a sample; epoch ``e`` asks for column ``e mod n_views``.
        n_epochs: Of the longest training that asks, which bounds how many columns there will be.
        budget_bytes: For each tensor of a summary.
        folder: Of this source on these views, for all processes of the machine; None remembers in memory.
        foreseen: Losses that other trainings are likely to ask with; what they keep is filled in the same pass.
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
    ) -> None:
        self.source = source
        self.shapes = source.shapes
        self.macs = source.macs
        self.parts = source.parts
        self.images = images
        self.n_samples = n_samples
        self.n_views = n_views
        self.n_columns = min(n_views, n_epochs)
        self.budget_bytes = budget_bytes
        self.foreseen = tuple(foreseen)
        self.folder = folder
        self._columns: dict[tuple[str, int], Tensor] = {}
        self._fits: dict[str, bool] = {}
        self._known: WeakKeyDictionary[KnowledgeLoss, list[str]] = WeakKeyDictionary()

    @property
    def device(self) -> torch.device:
        """Where the network is, and what it says."""
        return self.source.device

    @property
    def forward_images(self) -> int:
        """Images that the network was really run on so far."""
        return self.source.forward_images

    def summaries(
        self, images: Tensor, index: Tensor, epoch: int, losses: Sequence[KnowledgeLoss]
    ) -> list[Summary]:
        """See :class:`~naskd.knowledge.source.KnowledgeSource`."""
        names = [self._names(loss) for loss in losses]
        banked = [
            loss for loss, wanted in zip(losses, names, strict=True) if all(map(self._fits.get, wanted))
        ]
        online = [loss for loss in losses if loss not in banked]
        answers: dict[int, Summary] = {}
        if online:
            found = self.source.summaries(images, index, epoch, online)
            answers.update((id(loss), summary) for loss, summary in zip(online, found, strict=True))
        column = epoch % self.n_views
        missing = [
            loss
            for loss, wanted in zip(losses, names, strict=True)
            if loss in banked and any((name, column) not in self._columns for name in wanted)
        ]
        if missing:
            self._fill(column, epoch, missing)
        for loss, wanted in zip(losses, names, strict=True):
            if loss in banked:
                answers[id(loss)] = {name: self._columns[name, column][index] for name in wanted}
        return [answers[id(loss)] for loss in losses]

    def _names(self, loss: KnowledgeLoss) -> list[str]:
        """Names of a loss's summary tensors; notes on the way which of them fit."""
        if loss in self._known:
            return self._known[loss]
        with torch.device("meta"):
            summary = loss.summarise(taps_like(self.shapes, 1, "meta"))
        for name, tensor in summary.items():
            size = math.prod(tensor.shape[1:]) * tensor.element_size() * self.n_samples * self.n_columns
            self._fits[name] = size <= self.budget_bytes
        self._known[loss] = list(summary)
        return self._known[loss]

    def _fill(self, column: int, epoch: int, losses: Sequence[KnowledgeLoss]) -> None:
        """Have all tensors of a column that `losses` keep, and with them those that are foreseen."""
        if self.folder is None:
            self._pass_over(column, epoch, losses)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{column}.lock"):
            names = {name for loss in losses for name in self._names(loss)}
            self._map(column)
            if any((name, column) not in self._columns for name in names):
                self._pass_over(column, epoch, losses)
                self._write(column)

    def _pass_over(self, column: int, epoch: int, losses: Sequence[KnowledgeLoss]) -> None:
        """One pass of the network over the images of the column, for all that is still missing."""
        wanted = [
            loss
            for loss in self.foreseen
            if any(self._fits[name] and (name, column) not in self._columns for name in self._names(loss))
        ]
        parts: dict[str, list[Tensor]] = {}
        for chunk in torch.split(torch.arange(self.n_samples), FILL_BATCH):
            images = self.images(chunk, epoch)
            found: dict[str, Tensor] = {}
            for summary in self.source.summaries(images, chunk, epoch, [*losses, *wanted]):
                found.update({name: tensor for name, tensor in summary.items() if self._fits[name]})
            for name, tensor in found.items():
                parts.setdefault(name, []).append(tensor)
        for name, tensors in parts.items():
            self._columns.setdefault((name, column), torch.cat(tensors))

    def _map(self, column: int) -> None:
        """Take what other processes, or earlier ones, have written of a column."""
        assert self.folder is not None
        for path in self.folder.glob(f"*@{column}.pt"):
            name = path.name.rpartition("@")[0]
            if (name, column) not in self._columns:
                mapped = torch.load(path, mmap=True, map_location="cpu", weights_only=True)
                self._columns[name, column] = mapped.to(self.device)

    def _write(self, column: int) -> None:
        """Leave a column for others, and use it from there: mapped memory is shared. Without room it stays here."""
        assert self.folder is not None
        for name in [name for name, place in self._columns if place == column]:
            path = self.folder / f"{name}@{column}.pt"
            if path.exists():
                continue
            partial = self.folder / f"{path.name}.{os.getpid()}.partial"
            try:
                torch.save(self._columns[name, column].cpu(), partial)
                partial.replace(path)
            except OSError as error:
                partial.unlink(missing_ok=True)
                _LOG.warning("what the teacher said is kept in memory alone: %s", error)
                return
            del self._columns[name, column]
        self._map(column)
