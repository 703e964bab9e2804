"""What a phase is fed: the batches of an epoch, each with what frozen networks say of it."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from naskd.data.batches import epoch_order, in_batches, steps_per_epoch
from naskd.data.images import SearchData
from naskd.data.mixing import cutmix, mixup, shares
from naskd.data.unlabelled import PartlyLabelledImages, mixed_order
from naskd.data.views import StreamedImages, ViewedImages, make_views
from naskd.knowledge.base import Mixed
from naskd.schemes.scheme import UNLABELLED, Asked, Batch, Phase, PhaseData
from naskd.spec.design import TrainingSpec
from naskd.spec.errors import InputError
from naskd.spec.seeds import derive_seed
from naskd.training.class_weights import class_weights
from naskd.training.compute import Compute

AnyImages = ViewedImages | StreamedImages | PartlyLabelledImages

GATHERED = {"cpu": (2**18, 1024), "cuda": (2**24, 1024)}
"""Numbers and images that are gathered at once where a batch has fewer: what a cache holds, or what fills a GPU."""


class Feeding:
    """The batches of one phase.

    Args:
        phase: Whose.
        spec: Batch size, mixing, augmentation.
        data: Its training split is what a phase is fed that says nothing else; without labels, where these are not to
            teach.
        views: The training images with their enumerated views; unlabelled ones may be among them.
        seed: Of the order of batches, of mixing, and of the views of a phase's own images.
        compute: Where batches go.
    """

    def __init__(
        self,
        phase: Phase,
        spec: TrainingSpec,
        data: SearchData,
        views: AnyImages,
        seed: int,
        compute: Compute,
    ) -> None:
        self.phase = phase
        self.spec = spec
        self.seed = seed
        self.compute = compute
        self._shape = data.train.images.shape[1:]
        self._mixed_in = 0
        self._given: tuple[Tensor, AnyImages] | None = None
        if phase.data is not None:
            self.n_images = len(phase.data)
        elif phase.samples is not None:
            if isinstance(views, PartlyLabelledImages):
                raise InputError(
                    f"phase {phase.name!r} trains on a part of the training split, which no unlabelled images go with"
                )
            self.n_images, self._given = len(phase.samples), (data.train.labels, views)
        elif isinstance(views, PartlyLabelledImages):
            self.n_images, self._mixed_in = views.n_shown, views.unlabelled
            nothing = data.train.labels.new_full((views.n_shown - views.n_labelled,), UNLABELLED)
            self._given = (torch.cat([data.train.labels, nothing]), views)
        else:
            self.n_images, self._given = len(data.train), (data.train.labels, views)
        labels = data.train.labels
        if phase.samples is not None:  # of mean 1 over the images that it trains on
            labels = labels[phase.samples.to(labels.device)]
        self._class_weights = class_weights(spec.class_weights, labels, data.n_classes)
        self._unlabelled = not data.labels_teach
        own = phase.data
        self._partly = self._mixed_in > 0 or self._unlabelled or (own is not None and not own.all_labelled)
        if self._unlabelled and self._given is not None:
            labels, images = self._given
            self._given = (torch.full_like(labels, UNLABELLED), images)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        if self.phase.steps_per_epoch is not None:
            return self.phase.steps_per_epoch
        return steps_per_epoch(self.n_images, self.spec.batch_size, min_batch=self.phase.min_batch)

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch trains on."""
        if self.phase.steps_per_epoch is not None:
            return self.phase.steps_per_epoch * self.spec.batch_size
        n = self.n_images
        return min(n, self.steps_per_epoch * min(self.spec.batch_size, n))

    def lessons(self, epoch: int, max_steps: int | None = None) -> Iterator[tuple[Batch, Asked]]:
        """The batches of an epoch (from 0), each with what was asked for it; nothing is asked about others.

        Raises:
            InputError: A phase's own batches are fewer than it says.
        """
        if self.phase.batches is not None:
            yield from self._brought(epoch, max_steps)
        elif self.spec.mixing == "none":
            yield from self._asked_together(epoch, max_steps)
        else:
            plain = (b for group, size in self._groups(epoch, max_steps) for b in _split(group, size))
            for batch in self._mixed(plain, epoch):
                yield batch, self._ask(batch)

    def _brought(self, epoch: int, max_steps: int | None) -> Iterator[tuple[Batch, Asked]]:
        assert self.phase.batches is not None
        promised = self.steps_per_epoch  # schedules and costs follow from it
        steps = promised if max_steps is None else min(promised, max_steps)
        done = 0
        for batch in itertools.islice(self.phase.batches(epoch), steps):
            done += 1
            yield batch, self._ask(batch)
        if done < steps:
            as_many = (
                ""
                if self.phase.steps_per_epoch
                else ", as many as the training split has; give steps_per_epoch"
            )
            raise InputError(
                f"phase {self.phase.name!r} brought {done} of {promised} batches in epoch {epoch + 1}{as_many}"
            )

    def _asked_together(self, epoch: int, max_steps: int | None) -> Iterator[tuple[Batch, Asked]]:
        for group, size in self._groups(epoch, max_steps):
            for part in _split(group, max(1, self.phase.ask_images // size) * size):
                asked = self._ask(part)
                for batch, said in zip(
                    _split(part, size), _split_answers(asked, size, len(part.labels)), strict=True
                ):
                    yield batch, said
                del asked, said  # they may be large, and the next ones are asked for now

    def _ask(self, batch: Batch) -> Asked:
        with self.compute.autocast():
            return self.phase.ask(batch)

    def _images(self) -> tuple[Tensor, AnyImages]:
        """Labels and images; those of a phase's own are prepared at their first use."""
        if self._given is None:
            assert self.phase.data is not None
            self._given = self._prepare(self.phase.data)
        return self._given

    def _prepare(self, data: PhaseData) -> tuple[Tensor, AnyImages]:
        if data.images.shape[1:] != self._shape:
            raise InputError(
                f"phase {self.phase.name!r} has images {tuple(data.images.shape[1:])}, the study {tuple(self._shape)}"
            )
        seed, compute = derive_seed("views", self.seed, self.phase.name), self.compute
        views = make_views(self.spec.augmentation, len(data), seed, min(self._shape[-2:]))
        labels = data.labels
        if labels is None:
            labels = torch.full((len(data),), UNLABELLED, dtype=torch.long)
        images: AnyImages
        if data.streamed:
            images = StreamedImages(data.images, views, compute.device, channels_last=compute.channels_last)
        else:
            images = ViewedImages(data.images.to(compute.device), views, channels_last=compute.channels_last)
        return labels.to(compute.device), images

    def _groups(self, epoch: int, max_steps: int | None) -> Iterator[tuple[Batch, int]]:
        """The images in the order of the epoch, several small batches at once, and the size of one.

        To take them out of the images costs its launches and not its numbers.
        """
        labels, images = self._images()
        size = min(self.spec.batch_size, self.n_images)
        batches = in_batches(self._order(epoch), self.spec.batch_size, self.phase.min_batch)[:max_steps]
        numbers, most = GATHERED[self.compute.device.type]
        together = max(1, min(most, numbers // self._shape.numel()) // size) * size
        order = torch.cat(batches)
        here = order.to(self.compute.device)  # all at once: each transfer waits until the device is idle
        wanted = order if images.index_device.type == "cpu" else here
        found = images.batches(torch.split(wanted, together), epoch)
        known = self.phase.data is None
        for index, (shown, view) in zip(torch.split(here, together), found, strict=True):
            batch = Batch(shown, labels[index], index, view, epoch, known=known, partly_labelled=self._partly)
            yield replace(batch, class_weights=self._class_weights), size

    def _order(self, epoch: int) -> Tensor:
        """Positions in the order of an epoch, on the CPU."""
        if self._mixed_in:
            return mixed_order(self.n_images // (1 + self._mixed_in), self._mixed_in, self.seed, epoch)
        order = epoch_order(self.n_images, self.seed, epoch)
        return order if self.phase.samples is None else self.phase.samples[order]

    def _mixed(self, batches: Iterator[Batch], epoch: int) -> Iterator[Batch]:
        """The same batches with each image mixed with another, as the design says."""
        kind, seed = self.spec.mixing, self.seed
        drawn = shares(self.steps_per_epoch, self.spec.mixing_alpha, seed=seed, epoch=epoch)
        for step, (batch, share) in enumerate(zip(batches, drawn, strict=False)):
            if kind == "mixup":
                images = mixup(batch.images, share)
            else:
                box = derive_seed("box", seed, epoch, step)
                images, share = cutmix(batch.images, share, seed=box)
            given = Mixed(batch.labels.roll(1, 0), torch.full((), share, device=batch.images.device))
            yield replace(batch, images=images, mixed=given)


def _split(batch: Batch, size: int) -> Iterator[Batch]:
    """The same in pieces of `size`, the last of what is left."""
    parts = (torch.split(part, size) for part in (batch.images, batch.labels, batch.index, batch.view))
    for images, labels, index, view in zip(*parts, strict=True):
        yield replace(batch, images=images, labels=labels, index=index, view=view)


def _split_answers(asked: Asked, size: int, n: int) -> Iterator[Asked]:
    """What was said of `n` samples in the same pieces."""
    parts = [{name: torch.split(tensor, size) for name, tensor in summary.items()} for summary in asked]
    for i in range(-(-n // size)):
        yield [{name: pieces[i] for name, pieces in part.items()} for part in parts]
