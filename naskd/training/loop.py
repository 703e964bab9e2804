"""The one training loop: it runs phases, epoch by epoch, and can stop and go on at any epoch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from naskd.data.images import SearchData
from naskd.nn.subsampled import avoid_faulty_kernels
from naskd.schemes.scheme import Asked, Batch, Phase, Scheme, TrainingOverError, Update
from naskd.spec.design import TrainingSpec
from naskd.spec.errors import InputError
from naskd.spec.places import at, named
from naskd.spec.seeds import derive_seed
from naskd.training.compute import Compute
from naskd.training.cuda_graph import FEWEST, Replay, Row
from naskd.training.feeding import AnyImages, Feeding
from naskd.training.optimizers import build_optimizer, learning_rate, set_rate

PLACED = ("lr", "capturable")
"""Settings of an optimizer that follow from the device and the schedule, not from its history."""


class NonFiniteError(TrainingOverError):
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
        data: Training split; labels are on the device.
        views: The training images with their enumerated views; unlabelled ones may be among them.
        seed: Of the order of batches, and of what the networks draw.
        compute: Device and precision.
    """

    def __init__(
        self,
        scheme: Scheme,
        spec: TrainingSpec,
        data: SearchData,
        views: AnyImages,
        seed: int,
        compute: Compute,
    ) -> None:
        self.scheme = scheme
        self.spec = spec
        self.seed = seed
        self.compute = compute
        self.phases = _phases(scheme)
        avoid_faulty_kernels(scheme)
        self._feeding = {
            phase.name: Feeding(phase, spec, data, views, seed, compute) for phase in self.phases
        }
        self.epoch = 0
        self._phase: Phase | None = None
        self._players: dict[str, TrainingSpec] = {}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._replay: Replay | None = None

    @property
    def total_epochs(self) -> int:
        """Of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def images_per_epoch(self, epoch: int) -> int:
        """How many images the epoch `epoch` (from 0) trains on."""
        return self._feeding[self.phase_of(epoch).name].images_per_epoch

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
            self._players = {name: phase.training_of(name, self.spec) for name in phase.trained}
            recordable = phase.repeats and self.compute.cuda_graphs
            self._optimizers = {
                name: build_optimizer(self._players[name], modules, recordable=recordable)
                for name, modules in phase.trained.items()
            }
            worth = recordable and self._feeding[phase.name].steps_per_epoch * phase.epochs >= FEWEST
            self._replay = Replay(partial(self._update, phase), self.compute.device) if worth else None

    def run_epoch(self, max_steps: int | None = None) -> dict[str, float]:
        """Train one epoch.

        Args:
            max_steps: Break the epoch off after so many steps, for timing.

        Returns:
            Mean of the loss and of each of its terms over the epoch's steps.

        Raises:
            NonFiniteError: Naming the term or the parameter.
            TrainingOverError: See ``Phase.after_epoch``; a broken-off epoch is not judged.
        """
        phase, epoch = self._locate(self.epoch)
        self._enter(phase)
        self.scheme.eval()
        for modules in phase.trained.values():
            for module in modules:
                module.train()
        rows: list[Row] = []
        with self.compute.drawing(derive_seed("epoch", self.seed, self.epoch)):
            if phase.before_epoch is not None:
                phase.before_epoch(epoch)
            for batch, asked in self._feeding[phase.name].lessons(self.epoch, max_steps):
                rows.append(self._step(phase, batch, asked, len(rows)))
                del batch, asked  # before others are asked for
        self.epoch += 1
        if self.epoch == self.total_epochs and max_steps is None:
            self._replay = None  # it holds the device's memory, and this loop
        means = _means(rows)
        if not all(map(math.isfinite, means.values())):
            raise NonFiniteError(
                f"non-finite loss: {_first_non_finite(rows)} of epoch {self.epoch}{_own_code(self.scheme)}"
            )
        self._check_parameters()
        if phase.after_epoch is not None and max_steps is None:
            phase.after_epoch(means)
        return means

    def _step(self, phase: Phase, batch: Batch, asked: Asked, step: int) -> Row:
        """Execute the updates of one batch, recorded or not."""
        _, epoch = self._locate(self.epoch)
        per_epoch = self._feeding[phase.name].steps_per_epoch
        for name, optimizer in self._optimizers.items():
            rate = learning_rate(self._players[name], epoch * per_epoch + step, phase.epochs * per_epoch)
            set_rate(optimizer, rate)
        if self._replay is not None and len(batch.index) == self.spec.batch_size:
            return self._replay(batch, asked)
        return self._update(phase, batch, asked)

    def _update(self, phase: Phase, batch: Batch, asked: Asked) -> Row:
        """Execute the updates of one batch; names and values of the loss and the terms of each."""
        names: list[str] = []
        values: list[Tensor] = []
        updates = phase.step(batch, asked)
        if not isinstance(updates, Iterator):
            raise InputError(_of_step(phase, f"returned {type(updates).__name__}"))
        while True:
            with self.compute.autocast():
                update = next(updates, None)
            if update is None:
                if not values:
                    raise InputError(_of_step(phase, "yielded nothing"))
                return tuple(names), torch.cat(values) if len(values) > 1 else values[0]
            if not isinstance(update, Update) or update.optimizer not in self._optimizers:
                what = (
                    f"an Update of {update.optimizer!r}"
                    if isinstance(update, Update)
                    else type(update).__name__
                )
                raise InputError(_of_step(phase, f"yielded {what}"))
            noted = {"loss": update.loss, **update.terms}
            names += noted
            # A copy, since what is noted may be a parameter, which is about to move.
            values.append(torch.stack([value.detach() for value in noted.values()]).double())
            optimizer = self._optimizers[update.optimizer]
            optimizer.zero_grad(set_to_none=True)
            update.loss.backward()  # type: ignore[no-untyped-call]  # torch's is not annotated
            optimizer.step()

    def _check_parameters(self) -> None:
        named = [(n, p.detach()) for n, p in self.scheme.named_parameters() if p.requires_grad]
        # One number of all, since a GPU takes longer to launch a test of each than to do it.
        if math.isfinite(float(get_total_norm([p for _, p in named], math.inf))):
            return
        name = next(n for n, p in named if not bool(p.isfinite().all()))
        raise NonFiniteError(
            f"non-finite gradient: parameter {name} is no longer finite in epoch {self.epoch}{_own_code(self.scheme)}"
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
            self._phase = None  # a recording would go on with the state that it was made of
            phase, _ = self._locate(self.epoch - 1)
            self._enter(phase)
            for name, optimizer in self._optimizers.items():
                # Where the rate is kept depends on the device, which may be another one now.
                here = [
                    {key: group[key] for key in PLACED if key in group} for group in optimizer.param_groups
                ]
                optimizer.load_state_dict(state["optimizers"][name])
                for group, own in zip(optimizer.param_groups, here, strict=True):
                    group.update(own)


def _phases(scheme: Scheme) -> tuple[Phase, ...]:
    """Of a scheme, which may be a user's.

    Raises:
        InputError: They are none.
    """
    found = scheme.phases()
    if not isinstance(found, tuple | list) or not all(isinstance(phase, Phase) for phase in found):
        raise InputError(
            f"{type(scheme).__name__}.phases() returned {type(found).__name__}; wanted a tuple of phases"
            f"{at(type(scheme).phases)}"
        )
    return tuple(found)


def _of_step(phase: Phase, what: str) -> str:
    wanted = f"wanted a generator that yields an Update of {' or '.join(map(repr, phase.trained))}"
    return f"the step of phase {phase.name!r} {what}; {wanted}{at(phase.step)}"


def _own_code(scheme: Scheme) -> str:
    """What of a training is a user's, and may have made what is not finite; "" where nothing is."""
    found = {named(type(part)): None for part in scheme.modules() if at(type(part))}
    return f"; code of your own takes part: {', '.join(found)}" if found else ""


def _means(rows: Sequence[Row]) -> dict[str, float]:
    """Sums of all that was noted under a name, over the number of steps; the device is waited for once."""
    # Steps that note the same are looked at together; most phases have one kind.
    kinds: dict[tuple[str, ...], list[Tensor]] = {}
    for names, values in rows:
        kinds.setdefault(names, []).append(values)
    sums: dict[str, float] = {}
    for names, found in kinds.items():
        for name, value in zip(names, torch.stack(found).sum(0).tolist(), strict=True):
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / len(rows) for name, value in sums.items()}


def _first_non_finite(rows: Sequence[Row]) -> str:
    """Which terms were the first to be non-finite, and when: afterwards all are, whoever was to blame."""
    first: dict[str, tuple[int, float]] = {}
    for step, (names, values) in enumerate(rows):
        for name, value in zip(names, values.tolist(), strict=True):
            if not math.isfinite(value):
                first.setdefault(name, (step, value))
    start = min(step for step, _ in first.values())
    guilty = {name: value for name, (step, value) in first.items() if step == start}
    everything = guilty.keys() == {name for names, _ in rows for name in names}
    if len(guilty) > 1:
        guilty.pop("loss", None)
    text = f"{', '.join(f'{name} is {value}' for name, value in guilty.items())} from step {start + 1}"
    if everything and start > 0:
        text += f", after the update of step {start} (too large, or of a non-finite gradient),"
    return text
