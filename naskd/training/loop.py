"""The one training loop: it runs phases, epoch by epoch, and can stop and go on at any epoch."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from naskd.config import TrainingSpec
from naskd.data.batches import epoch_batches, steps_per_epoch
from naskd.data.images import SearchData
from naskd.data.views import ViewedImages
from naskd.schemes.scheme import Batch, Phase, Scheme
from naskd.seeds import derive_seed
from naskd.training.compute import Compute
from naskd.training.optimizers import build_optimizer, learning_rate


class NonFiniteError(ArithmeticError):
    """A loss or a parameter is no longer finite; the training is over."""


class TrainingLoop:
    """Executes the phases of a scheme.

    No value is read from the device inside an epoch; the losses of its steps are read, and finiteness is checked, at
    its end. A non-finite gradient makes parameters non-finite under both optimizers, so that looking at the parameters
    finds it.

    Random numbers inside an epoch (dropout, say) follow from seed and epoch alone, and leave torch's generators as they
    were: a training has the same bits whatever ran before it, and from a checkpoint too.

    Args:
        scheme: What to train.
        spec: Optimizer and schedule.
        data: Training split, on the device.
        views: The training images with their enumerated views.
        seed: Of the order of batches, and of what the networks draw.
        compute: Device and precision.
    """

    def __init__(
        self,
        scheme: Scheme,
        spec: TrainingSpec,
        data: SearchData,
        views: ViewedImages,
        seed: int,
        compute: Compute,
    ) -> None:
        self.scheme = scheme
        self.spec = spec
        self.data = data
        self.views = views
        self.seed = seed
        self.compute = compute
        self.phases = scheme.phases()
        self.epoch = 0
        self._phase: Phase | None = None
        self._optimizers: dict[str, torch.optim.Optimizer] = {}

    @property
    def total_epochs(self) -> int:
        """Of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def images_per_epoch(self, epoch: int) -> int:
        """How many images the epoch `epoch` (from 0) trains on."""
        phase, _ = self._locate(epoch)
        n = len(self.data.train)
        size = min(self.spec.batch_size, n)
        return min(n, steps_per_epoch(n, self.spec.batch_size, min_batch=phase.min_batch) * size)

    def phase_of(self, epoch: int) -> Phase:
        """The phase that the epoch `epoch` (from 0) is in."""
        return self._locate(epoch)[0]

    def _locate(self, epoch: int) -> tuple[Phase, int]:
        """The phase of an epoch, and the epoch within it."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase, epoch
            epoch -= phase.epochs
        raise ValueError(
            f"the phases have {self.total_epochs} epochs; there is no epoch {epoch + self.total_epochs}"
        )

    def _enter(self, phase: Phase) -> None:
        if self._phase is not phase:
            self._phase = phase
            self._optimizers = {
                name: build_optimizer(self.spec, modules) for name, modules in phase.trained.items()
            }

    def _batches(self, phase: Phase) -> Iterator[Batch]:
        if phase.batches is not None:
            yield from phase.batches(self.epoch)
            return
        labels = self.data.train.labels
        for index in epoch_batches(
            len(labels), self.spec.batch_size, seed=self.seed, epoch=self.epoch, min_batch=phase.min_batch
        ):
            index = index.to(self.compute.device)
            images, view = self.views.batch(index, self.epoch)
            yield Batch(images, labels[index], index, view, self.epoch)

    def run_epoch(self, max_steps: int | None = None) -> dict[str, float]:
        """Train one epoch.

        Args:
            max_steps: Break the epoch off after so many steps, for timing.

        Returns:
            Mean of the loss and of each of its terms over the epoch's steps.

        Raises:
            NonFiniteError: Naming the term or the parameter.
        """
        phase, _ = self._locate(self.epoch)
        self._enter(phase)
        self.scheme.eval()
        for modules in phase.trained.values():
            for module in modules:
                module.train()
        values: dict[str, list[tuple[int, Tensor]]] = {}
        steps = 0
        devices = [self.compute.device] if self.compute.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(derive_seed("epoch", self.seed, self.epoch))
            for batch in itertools.islice(self._batches(phase), max_steps):
                for name, value in self._step(phase, batch, steps):
                    values.setdefault(name, []).append((steps, value))
                steps += 1
        self.epoch += 1
        means = {
            name: float(torch.stack([value for _, value in found]).sum()) / steps
            for name, found in values.items()
        }
        if not all(map(math.isfinite, means.values())):
            raise NonFiniteError(f"non-finite loss: {_first_non_finite(values)} of epoch {self.epoch}")
        self._check_parameters()
        return means

    def _step(self, phase: Phase, batch: Batch, step: int) -> Iterator[tuple[str, Tensor]]:
        """Execute the updates of one batch; the loss and the terms of each, by name."""
        _, epoch = self._locate(self.epoch)
        per_epoch = steps_per_epoch(len(self.data.train), self.spec.batch_size, min_batch=phase.min_batch)
        rate = learning_rate(self.spec, epoch * per_epoch + step, phase.epochs * per_epoch)
        updates = phase.step(batch)
        while True:
            with self.compute.autocast():
                update = next(updates, None)
            if update is None:
                return
            for name, value in {"loss": update.loss, **update.terms}.items():
                # A copy, since what is noted may be a parameter, which is about to move.
                yield name, value.detach().double()
            optimizer = self._optimizers[update.optimizer]
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            update.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def _check_parameters(self) -> None:
        named = [(n, p) for n, p in self.scheme.named_parameters() if p.requires_grad]
        finite = torch.stack([p.detach().isfinite().all() for _, p in named])
        if not bool(finite.all()):
            name = next(n for (n, _), ok in zip(named, finite.tolist(), strict=True) if not ok)
            raise NonFiniteError(
                f"non-finite gradient: parameter {name} is no longer finite in epoch {self.epoch}"
            )

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on from the end of the last epoch with the same bits."""
        return {
            "epoch": self.epoch,
            "scheme": self.scheme.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.epoch = state["epoch"]
        self.scheme.load_state_dict(state["scheme"])
        if state["optimizers"] and self.epoch > 0:
            phase, _ = self._locate(self.epoch - 1)
            self._enter(phase)
            for name, optimizer in self._optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])


def _first_non_finite(values: Mapping[str, Sequence[tuple[int, Tensor]]]) -> str:
    """Which terms were the first to be non-finite, and when: afterwards all are, whoever was to blame."""
    never = 1 + max(step for found in values.values() for step, _ in found)
    first = {
        name: next(((step, float(value)) for step, value in found if not value.isfinite()), (never, 0.0))
        for name, found in values.items()
    }
    start = min(step for step, _ in first.values())
    guilty = {name: value for name, (step, value) in first.items() if step == start}
    everything = len(guilty) == len(values)
    if len(guilty) > 1:
        guilty.pop("loss", None)
    text = f"{', '.join(f'{name} is {value}' for name, value in guilty.items())} from step {start + 1}"
    if everything and start > 0:
        text += f", after the update of step {start} (too large, or of a non-finite gradient),"
    return text
