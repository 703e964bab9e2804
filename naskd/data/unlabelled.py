"""Epochs of labelled images and of others without labels, so many with each labelled one.

The labelled images come in every epoch. The others stand in a row, in a fixed random order, and come in blocks of as
many as there are labelled ones: with ``r`` of them for each labelled image an epoch shows the next ``r`` blocks. At the
end of the row it begins again, with the next view of each. So the k-th block that a training shows is the same for
every ``r``, and what a teacher said of it serves trainings with few and with many.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from naskd.data.views import AnyViews, StreamedImages, ViewedImages
from naskd.spec.seeds import derive_seed


class Blocks:
    """Which image each place of each block shows, and which of its views.

    The last block of a row is filled up from its beginning.

    Args:
        n_labelled: N, places of a block.
        n_unlabelled: U, images in the row.
        seed: Of their order.
    """

    def __init__(self, n_labelled: int, n_unlabelled: int, seed: int) -> None:
        self.n_labelled = n_labelled
        self.n_unlabelled = n_unlabelled
        self.per_round = -(-n_unlabelled // n_labelled)
        keys = np.random.PCG64(derive_seed("unlabelled", seed)).random_raw(n_unlabelled)
        self.order = torch.from_numpy(keys.argsort(kind="stable"))

    @property
    def begins_again(self) -> bool:
        """Whether the row ends within a block."""
        return self.n_unlabelled % self.n_labelled > 0

    def n_blocks(self, n_views: int) -> int:
        """Blocks before the first comes again with the same views, of images with so many."""
        return self.per_round * n_views

    def at(self, block: Tensor | int, place: Tensor) -> tuple[Tensor, Tensor]:
        """Images and views at places of blocks.

        Args:
            block: ``(B,)`` or one number, from 0.
            place: ``(B,)`` in [0, N), on the device of :attr:`order`.

        Returns:
            ``(B,)`` positions in [0, U), and ``(B,)`` epochs whose views they show.
        """
        step = block % self.per_round * self.n_labelled + place
        again = torch.div(step, self.n_unlabelled, rounding_mode="floor")
        return self.order[step % self.n_unlabelled], block // self.per_round + again

    def to(self, device: torch.device | str) -> "Blocks":
        """The same with the order on `device`."""
        moved = object.__new__(Blocks)
        moved.__dict__.update(self.__dict__, order=self.order.to(device))
        return moved


class PartlyLabelledImages:
    """What a training is fed with `unlabelled` images for each labelled one.

    Positions of an epoch: those in [0, N) are the labelled images', the others' are ``N + b N + p`` for place `p` of
    the epoch's `b`-th block.

    Args:
        images: The labelled images, and after them the unlabelled ones.
        blocks: Of the latter.
        unlabelled: For each labelled one, at least 1.
    """

    def __init__(self, images: ViewedImages | StreamedImages, blocks: Blocks, unlabelled: int) -> None:
        self._images = images
        self.index_device = images.index_device
        """Where indices should lie; see :class:`~naskd.data.views.ViewedImages`."""
        self._blocks = blocks.to(self.index_device)
        self.unlabelled = unlabelled

    @property
    def views(self) -> AnyViews:
        """Of the labelled images, and after them of the unlabelled ones."""
        return self._images.views

    @property
    def n_labelled(self) -> int:
        """N."""
        return self._blocks.n_labelled

    @property
    def n_shown(self) -> int:
        """Positions of an epoch."""
        return self.n_labelled * (1 + self.unlabelled)

    def located(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Images at positions ``(B,)`` of an epoch (from 0), and the epochs whose views they show, ``(B,)`` each."""
        n = self.n_labelled
        block = epoch * self.unlabelled + torch.div(index, n, rounding_mode="floor") - 1
        image, view_epoch = self._blocks.at(block, index % n)
        labelled = index < n
        return torch.where(labelled, index, n + image), torch.where(labelled, epoch, view_epoch)

    def batch(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """See :meth:`~naskd.data.views.ViewedImages.batch`; `index` is of positions, on :attr:`index_device`."""
        return self._images.batch(*self.located(index, epoch))

    def batches(self, indices: Sequence[Tensor], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """:meth:`batch` of each of several."""
        found = [self.located(index, epoch) for index in indices]
        yield from self._images.batches([image for image, _ in found], [epochs for _, epochs in found])

    def block(self, place: Tensor, block: int) -> Tensor:
        """The images ``(B, C, H, W)`` at places ``(B,)`` of a block, in [0, 1]."""
        image, view_epoch = self._blocks.at(block, place.to(self.index_device))
        return self._images.batch(self.n_labelled + image, view_epoch)[0]


def mixed_order(n_labelled: int, unlabelled: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's positions: ``(N (1 + r),)`` int64, on the CPU.

    Both kinds are shuffled, and each ``1 + r`` in a row have one labelled image at a random place: every batch has its
    part of them, but for one.

    Args:
        n_labelled: N.
        unlabelled: r.
        seed: Of the training.
        epoch: From 0.
    """
    generator = torch.Generator().manual_seed(derive_seed("mixed order", seed, epoch))
    labelled = torch.randperm(n_labelled, generator=generator)
    others = n_labelled + torch.randperm(n_labelled * unlabelled, generator=generator)
    together = torch.cat([labelled[:, None], others.view(n_labelled, unlabelled)], dim=1)
    places = torch.rand(together.shape, generator=generator).argsort(dim=1)
    return together.gather(1, places).view(-1)
