"""Trainings that were recorded, as a replay looks them up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from naskd.spec.design import Cost, TrialConfig


@dataclass(frozen=True)
class Recorded:
    """What a training was, or would be.

    Args:
        curve: One mapping for each epoch, in order: ``val_accuracy``, losses; at least one.
        metrics: As of the end: all objectives of the study.
        train_macs: Of the whole training; a part of it costs its share.
        epoch_seconds: That an epoch takes.
        shared: For each epoch, what must be made before it, once for all trainings: multiply-accumulates by name.
            Whoever comes first pays. Fewer entries than epochs: later ones need nothing more.
        again: Further trainings of the same design, with other seeds, in the order in which a study sees them.
    """

    curve: tuple[Mapping[str, float], ...]
    metrics: Mapping[str, float]
    train_macs: int = 0
    epoch_seconds: float = 1.0
    shared: tuple[Mapping[str, int], ...] = ()
    again: tuple["Recorded", ...] = ()

    def macs_until(self, epoch: int) -> int:
        """Multiply-accumulates of the first epochs: their share of ``train_macs``, rounded down."""
        return self.train_macs * epoch // len(self.curve)


@dataclass
class Account:
    """What trainings of a table cost together, where a thing that they share is made once.

    Args:
        made: Names of what has been made and paid.
    """

    made: set[str] = field(default_factory=set)

    def shared_macs(self, training: Recorded, epoch: int) -> int:
        """Multiply-accumulates of what an epoch (from 1) needs and nobody has had made; it is made now."""
        needed = training.shared[epoch - 1] if epoch <= len(training.shared) else {}
        new = {name: macs for name, macs in needed.items() if name not in self.made}
        self.made |= new.keys()
        return sum(new.values())


Trainings = Callable[[TrialConfig], Recorded | None] | Mapping[str, Recorded]
"""Of designs, or by their ``config_id``."""


def found_in(trainings: Trainings, config: TrialConfig) -> Recorded | None:
    """The training of a design; None where there is none."""
    return trainings(config) if callable(trainings) else trainings.get(config.config_id)


@dataclass(frozen=True)
class RecordedTable:
    """Trainings that were recorded, as the function returns it that ``execution.table`` names.

    Args:
        trainings: Of designs, or by their ``config_id``.
        cost: Of a design's deployed network.
        in_channels, resolution, n_classes: Of the images that were trained on.
        n_train: How many there were.
        n_val: How many accuracies were measured on; 0 where that is not known.
    """

    trainings: Trainings
    cost: Callable[[TrialConfig], Cost]
    in_channels: int = 3
    resolution: int = 32
    n_classes: int = 10
    n_train: int = 1
    n_val: int = 0
