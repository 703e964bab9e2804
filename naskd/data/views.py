"""Enumerated views: augmentation drawn by index, so that what a network saw has a name.

Flips and translations with zero padding, as trained on CIFAR-10 since He et al., "Deep residual learning",
CVPR 2016, arXiv 1512.03385, section 4.2 (there +-4 pixels).

Differs: the views of an image are visited in a fixed random order instead of drawn afresh. After V epochs
each has been seen exactly once, and a teacher's answer to (sample, view) can be stored and shared by all
trials.
"""

import copy
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from naskd.data.crops import ResizedCrops
from naskd.data.few_views import BoundedViews

_PERMUTATION_CHUNK = 65_536

AHEAD = 3
"""Batches that are collected before they are used, where images are streamed."""


def default_shift(resolution: int) -> int:
    """Largest translation in pixels: 1 below 16x16, where two pixels are a quarter of the image, else 2."""
    return 1 if resolution < 16 else 2


CACHED = 2**19
"""Numbers of the images that are made into a batch at once on a CPU: what lies between them stays in its cache."""

Made = TypeVar("Made")
Epochs = int | Sequence[Tensor]
"""Of several batches: the same for all, or ``(B,)`` for each, where each image has one of its own."""

TABLE_SIZE = 2**24
"""Numbers of all views of an image for which a table of their positions is kept, 64 MiB; it is 50 x 3,072 for CIFAR."""


def _epoch_of(epochs: Epochs, position: int) -> int | Tensor:
    """Of one of several batches."""
    return epochs if isinstance(epochs, int) else epochs[position]


def as_float(images: Tensor) -> Tensor:
    """Images uint8 ``(B, C, H, W)`` as float32 in [0, 1], in the memory format that they have."""
    return images.div(255)


class Gather(Protocol):
    """Takes views out of images."""

    def padded(self, images: Tensor) -> Tensor:
        """Images uint8 ``(N, C, H, W)`` as :meth:`gather` reads them; the same tensor where nothing is to be done."""

    def gather(self, pixels: Tensor, place: Tensor, sample: Tensor, view_ids: Tensor) -> Tensor:
        """Given views of given samples.

        Args:
            pixels: From :meth:`padded`.
            place: ``(B,)`` positions in `pixels`.
            sample: ``(B,)`` positions in the training split, which a view may depend on.
            view_ids: ``(B,)`` in [0, V).

        Returns:
            ``(B, C, H, W)`` float32 in [0, 1].
        """


class AnyViews(Protocol):
    """Augmentation with identities: which view a sample shows in an epoch, and what takes it out of an image."""

    @property
    def n_samples(self) -> int:
        """Of the training split."""

    @property
    def n_views(self) -> int:
        """V, epochs before the first view comes again."""

    @property
    def fingerprint(self) -> str:
        """Of all that the views and their order depend on."""

    def view_ids(self, index: Tensor, epoch: int | Tensor) -> Tensor:
        """Which view each sample of ``(B,)`` positions shows in an epoch (from 0): ``(B,)`` int64 in [0, V).

        Args:
            index: Positions.
            epoch: The same for all, or ``(B,)``, one for each.
        """

    def gatherer(self, shape: tuple[int, ...], *, channels_last: bool, once: bool = False) -> Gather:
        """What takes them out of images.

        Args:
            shape: ``(C, H, W)``.
            channels_last: Batches come in ``torch.channels_last``.
            once: One batch is taken out of what :meth:`Gather.padded` makes, and not many.
        """

    def to(self, device: torch.device | str) -> "AnyViews":
        """The same views on `device`."""


def make_views(augmentation: str, n_samples: int, seed: int, resolution: int, *, step: int = 1) -> AnyViews:
    """The views of an augmentation for images of a resolution; see :class:`Views` and its arguments.

    With a `step` they are of images that are so many times as large, and show what those of the resolution show.

    Raises:
        ValueError: There is no such augmentation.
    """
    if augmentation == ResizedCrops.augmentation:
        return ResizedCrops(n_samples, seed)
    shift = default_shift(resolution)
    return Views(augmentation, n_samples=n_samples, seed=seed, shift=shift, step=step)


def count_views(augmentation: str, resolution: int) -> int:
    """Views of an image under an augmentation, without making them; see :class:`Views`."""
    if augmentation == ResizedCrops.augmentation:
        return ResizedCrops.n_views
    side = 2 * default_shift(resolution) + 1 if "translate" in augmentation else 1
    return side**2 * (2 if "flip" in augmentation else 1)


class Views:
    """The views of an image, their names, and the order in which each sample visits them.

    View ``((dy + s) * (2s + 1) + (dx + s)) * F + f`` is the image, mirrored left to right if ``f`` is 1, then
    moved so that its pixel ``(y, x)`` shows what was at ``(y + dy, x + dx)``, in steps of pixels; what comes from
    outside is 0. ``s`` is the shift (0 without translation), ``F`` is 2 with flips and 1 without.

    Args:
        augmentation: ``none`` (1 view), ``flip`` (2), ``translate`` (``(2s + 1)**2``) or ``flip_translate``
            (twice that).
        n_samples: Number of training samples.
        seed: Of the permutations: one a study, so that all its trials ask for the same views. The order of a
            sample does not depend on `n_samples`.
        shift: Largest translation in steps, in [1, 50]; see :func:`default_shift`.
        step: Pixels of a step.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(self, augmentation: str, *, n_samples: int, seed: int, shift: int, step: int = 1) -> None:
        if augmentation not in ("none", "translate", "flip", "flip_translate"):
            raise ValueError(
                f"augmentation must be none, translate, flip or flip_translate, got {augmentation!r}"
            )
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        if not 1 <= shift <= 50:
            raise ValueError(f"shift must be in [1, 50] steps, got {shift}")
        if step < 1:
            raise ValueError(f"step must be at least 1 pixel, got {step}")
        self.augmentation = augmentation
        self.n_samples = n_samples
        self.seed = seed
        self.shift = shift if "translate" in augmentation else 0
        self.step = step if self.shift else 1
        self.n_flips = 2 if "flip" in augmentation else 1
        self.table = _permutations(n_samples, self.n_views, seed)

    @property
    def n_views(self) -> int:
        """V, the number of views of one image."""
        return (2 * self.shift + 1) ** 2 * self.n_flips

    @property
    def identity(self) -> int:
        """The view that shows the image as it is."""
        return (self.shift * (2 * self.shift + 1) + self.shift) * self.n_flips

    @property
    def fingerprint(self) -> str:
        """Of all that the views and their order depend on."""
        steps = "" if self.step == 1 else f" in steps of {self.step}"
        return f"{self.augmentation}{steps} {hashlib.sha256(self.table.cpu().numpy().tobytes()).hexdigest()}"

    def gatherer(self, shape: tuple[int, ...], *, channels_last: bool, once: bool = False) -> "ViewGather":
        """See :class:`AnyViews`."""
        return ViewGather(self, shape, channels_last=channels_last, once=once)

    def to(self, device: torch.device | str) -> "Views":
        """The same views with their table on `device`."""
        moved = object.__new__(Views)
        moved.__dict__.update(self.__dict__, table=self.table.to(device))
        return moved

    def view_ids(self, index: Tensor, epoch: int | Tensor) -> Tensor:
        """Which view each sample shows in an epoch: its permutation at ``epoch mod V``.

        Args:
            index: ``(B,)`` positions in the training split.
            epoch: From 0; one for each sample, or the same for all.

        Returns:
            ``(B,)`` int64 in [0, V), on the table's device.
        """
        column = epoch % self.n_views
        if isinstance(column, Tensor):
            column = column.to(self.table.device)
        return self.table[index.to(self.table.device), column].long()

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vertical and horizontal offset (steps in [0, 2s], s means none) and flip of each view, ``(V,)`` each."""
        view = torch.arange(self.n_views, device=self.table.device)
        offset, side = view // self.n_flips, 2 * self.shift + 1
        return offset // side, offset % side, view % self.n_flips


class ViewGather:
    """Takes views out of images, with one gather for a batch.

    Args:
        views: On the device of the images.
        shape: ``(C, H, W)`` of an image.
        channels_last: Batches come in ``torch.channels_last``.
        once: See :meth:`AnyViews.gatherer`. Padded images then keep their planes: to put them in the order of the batch
            takes longer than it saves a single gather.
    """

    def __init__(
        self, views: Views, shape: tuple[int, ...], *, channels_last: bool, once: bool = False
    ) -> None:
        self.views = views
        self.channels_last = channels_last
        self._reordered = channels_last and not once
        channels, height, width = shape
        shift, device = views.shift * views.step, views.table.device
        rows, columns = height + 2 * shift, width + 2 * shift
        self._sample_stride = channels * rows * columns
        if self._reordered:
            row_stride, column_stride, channel_stride = columns * channels, channels, 1
        else:
            channel_stride, row_stride, column_stride = rows * columns, columns, 1
        down, right, flip = views.parts()
        down, right = down * views.step, right * views.step
        # Mirrored first, then moved: column c shows the mirror's column c + dx, which is W - 1 - c - dx of
        # the image.
        column = torch.arange(width, device=device) + right[:, None]
        column = torch.where(flip[:, None] == 1, width - 1 + 2 * shift - column, column)
        self._channel_offset = torch.arange(channels, device=device) * channel_stride
        self._row_offset = (torch.arange(height, device=device) + down[:, None]) * row_stride
        self._column_offset = column * column_stride
        # Half the memory to go through, where it can name every pixel.
        fits = views.n_samples * self._sample_stride <= torch.iinfo(torch.int32).max
        self._type = torch.int32 if fits else torch.int64
        self._offsets: Tensor | None = None
        if 1 < views.n_views <= TABLE_SIZE // (channels * height * width):
            self._offsets = self._offsets_of(torch.arange(views.n_views, device=device)).to(self._type)

    def _offsets_of(self, view_ids: Tensor) -> Tensor:
        """Of each number of a view from where its padded image begins, ``(B, ...)`` in the order of the batch."""
        rows, columns = self._row_offset[view_ids], self._column_offset[view_ids]
        if self.channels_last:
            return rows[:, :, None, None] + columns[:, None, :, None] + self._channel_offset
        return self._channel_offset[:, None, None] + rows[:, None, :, None] + columns[:, None, None, :]

    def padded(self, images: Tensor) -> Tensor:
        """See :class:`Gather`."""
        shift = self.views.shift * self.views.step
        images = functional.pad(images, (shift, shift, shift, shift)) if shift else images
        # In the order that the batch will have, so that a gather reads and writes along memory.
        return (images.permute(0, 2, 3, 1) if self._reordered else images).contiguous()

    def gather(self, pixels: Tensor, place: Tensor, sample: Tensor, view_ids: Tensor) -> Tensor:
        """See :class:`Gather`; a view is the same for all samples."""
        if self.views.n_views == 1:
            found = pixels.index_select(0, place)
            if self.channels_last and not self._reordered:
                found = found.permute(0, 2, 3, 1).contiguous()
        else:
            # Flat positions and one index_select: three times as fast on a CPU as indexing with four tensors, and
            # faster still where the positions within an image are looked up.
            if self._offsets is not None:
                flat = self._offsets.index_select(0, view_ids)
            else:
                flat = self._offsets_of(view_ids).to(self._type)
            flat += (place * self._sample_stride).to(self._type)[:, None, None, None]
            found = pixels.view(-1).index_select(0, flat.view(-1)).view(flat.shape)
        return as_float(found.permute(0, 3, 1, 2) if self.channels_last else found)


class ViewedImages:
    """A data set that hands out views. Padded once, on its device, then one gather a batch.

    Args:
        images: ``(N, C, H, W)`` uint8, N as in `views`. Without translation they are kept, not copied (with
            `channels_last` one copy in that order is made).
        views: On any device; they follow the images.
        channels_last: Batches come in ``torch.channels_last``.

    Raises:
        ValueError: The images are not those of the views.
    """

    def __init__(self, images: Tensor, views: AnyViews, *, channels_last: bool = False) -> None:
        _check(images, views)
        self.views = views.to(images.device)
        self.channels_last = channels_last
        self._gather = self.views.gatherer(tuple(images.shape[1:]), channels_last=channels_last)
        self._pixels = self._gather.padded(images)
        self.index_device = images.device
        """Where indices should lie: others take a transfer, which waits for the device."""

    def bounded(self, most: int) -> "ViewedImages":
        """The same images, in the same memory, of which at most so many views are shown; see :class:`BoundedViews`."""
        return _bounded(self, most)

    def batch(self, index: Tensor, epoch: int | Tensor) -> tuple[Tensor, Tensor]:
        """The images of an epoch's batch and the views that they show.

        Args:
            index: ``(B,)`` positions in the training split, on any device.
            epoch: From 0; ``(B,)`` where each image has one of its own.

        Returns:
            ``(B, C, H, W)`` float32 in [0, 1], and ``(B,)`` int64 view ids.
        """
        view_ids = self.views.view_ids(index, epoch)
        return self.gather(index, view_ids), view_ids

    def batches(self, indices: Sequence[Tensor], epoch: Epochs) -> Iterator[tuple[Tensor, Tensor]]:
        """:meth:`batch` of each of several."""
        for position, index in enumerate(indices):
            yield self.batch(index, _epoch_of(epoch, position))

    def gather(self, index: Tensor, view_ids: Tensor) -> Tensor:
        """Given views of given samples.

        Args:
            index: ``(B,)`` positions in the training split, on any device.
            view_ids: ``(B,)`` in [0, V).

        Returns:
            ``(B, C, H, W)`` float32 in [0, 1].
        """
        device = self._pixels.device
        sample = index.to(device)
        return self._gather.gather(self._pixels, sample, sample, view_ids.to(device))


class StreamedImages:
    """The same for images that stay in the host's memory: raw pixels travel, views are taken on the device.

    While a batch is used, a thread of its own works on the next ones. On a CPU it makes them whole. For a GPU it
    collects pixels in pinned memory, so that their transfer waits for nobody.

    Args:
        images: ``(N, C, H, W)`` uint8 on the CPU; neither copied nor padded as a whole.
        views: See :class:`ViewedImages`.
        device: Where batches go.
        channels_last: See :class:`ViewedImages`.

    Raises:
        ValueError: The images are not those of the views.
    """

    def __init__(
        self,
        images: Tensor,
        views: AnyViews,
        device: torch.device,
        *,
        channels_last: bool = False,
    ) -> None:
        _check(images, views)
        self.views = views.to(device)
        self.channels_last = channels_last
        self.device = device
        self.index_device = torch.device("cpu")
        """Where indices must lie."""
        self._images = images
        self._gather = self.views.gatherer(tuple(images.shape[1:]), channels_last=channels_last, once=True)

    def bounded(self, most: int) -> "StreamedImages":
        """See :meth:`ViewedImages.bounded`."""
        return _bounded(self, most)

    def batch(self, index: Tensor, epoch: int | Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`ViewedImages.batch`."""
        if self.device.type == "cpu":
            return self._made_here(index.cpu(), epoch)
        return self._viewed(*self._collect(index.cpu()), epoch)

    def batches(self, indices: Sequence[Tensor], epoch: Epochs) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`ViewedImages.batches`; `indices` are on the CPU."""
        with ThreadPoolExecutor(1, thread_name_prefix="images") as collector:
            if self.device.type == "cpu":
                yield from _ahead(
                    collector,
                    [partial(self._made_here, index, _epoch_of(epoch, n)) for n, index in enumerate(indices)],
                )
            else:
                rows = _ahead(collector, [partial(self._collect, index) for index in indices])
                for position, collected in enumerate(rows):
                    yield self._viewed(*collected, _epoch_of(epoch, position))

    def _made_here(self, index: Tensor, epoch: int | Tensor) -> tuple[Tensor, Tensor]:
        """A batch of the CPU, from few images at a time."""
        view_ids = self.views.view_ids(index, epoch)
        shape = self._images.shape[1:]
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        batch = torch.empty((len(index), *shape), memory_format=order)
        size = max(1, CACHED // shape.numel())
        pieces = (torch.split(whole, size) for whole in (batch, index, view_ids))
        for part, sample, ids in zip(*pieces, strict=True):
            pixels = self._gather.padded(self._images.index_select(0, sample))
            part.copy_(self._gather.gather(pixels, torch.arange(len(sample)), sample, ids))
        return batch, view_ids

    def _collect(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images and index where a transfer to the device waits for nobody."""
        rows = self._images.index_select(0, index)
        return (rows.pin_memory(), index.pin_memory()) if self.device.type == "cuda" else (rows, index)

    def _viewed(self, rows: Tensor, index: Tensor, epoch: int | Tensor) -> tuple[Tensor, Tensor]:
        sample = index.to(self.device, non_blocking=True)
        if isinstance(epoch, Tensor):
            epoch = epoch.pin_memory() if self.device.type == "cuda" else epoch
            epoch = epoch.to(self.device, non_blocking=True)
        view_ids = self.views.view_ids(sample, epoch)
        pixels = self._gather.padded(rows.to(self.device, non_blocking=True))
        here = torch.arange(len(rows), device=self.device)
        return self._gather.gather(pixels, here, sample, view_ids), view_ids


def _ahead(collector: ThreadPoolExecutor, calls: Sequence[Callable[[], Made]]) -> Iterator[Made]:
    """What calls return, in their order; a few are made before they are asked for."""
    coming: deque[Future[Made]] = deque()
    for position in range(len(calls)):
        while position + len(coming) < min(len(calls), position + AHEAD):
            coming.append(collector.submit(calls[position + len(coming)]))
        yield coming.popleft().result()


Images = TypeVar("Images", ViewedImages, StreamedImages)


def _bounded(images: Images, most: int) -> Images:
    shown = copy.copy(images)
    shown.views = BoundedViews(images.views, most)
    return shown


def _check(images: Tensor, views: AnyViews) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[0] != views.n_samples:
        raise ValueError(
            f"images must be uint8 ({views.n_samples}, C, H, W) for these views, got {images.dtype} "
            f"{tuple(images.shape)}"
        )


def _permutations(n_samples: int, n_views: int, seed: int) -> Tensor:
    """One permutation a row, ``(n_samples, n_views)`` in the smallest integer type: random keys, sorted.

    The keys are the raw stream of PCG64, which NumPy keeps for ever, since banks of teacher outputs outlive a
    version.
    """
    dtype = np.uint8 if n_views <= 256 else np.int16
    table = np.zeros((n_samples, n_views), dtype)
    if n_views > 1:
        stream = np.random.PCG64(seed)
        for start in range(0, n_samples, _PERMUTATION_CHUNK):
            rows = table[start : start + _PERMUTATION_CHUNK]
            rows[:] = stream.random_raw(rows.size).reshape(rows.shape).argsort(axis=1)
    return torch.from_numpy(table)
