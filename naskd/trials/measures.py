"""What objectives are computed from, and the objectives that naskd brings.

Importing this imports neither torch nor data: objectives known before training are for those who train nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from naskd.spec.design import Cost, TrialConfig
from naskd.spec.errors import USERS, InputError, one_line
from naskd.spec.latency import LatencyProfile
from naskd.spec.numbers import real_number
from naskd.spec.objectives import Objective
from naskd.spec.operators import OperatorGraph
from naskd.spec.registry import imported
from naskd.spec.sizes import Size

if TYPE_CHECKING:
    from torch import nn

    from naskd.data.images import SearchData
    from naskd.training.compute import Compute


class ObjectiveError(InputError):
    """An objective raised, or its value is none: not finite, or not positive on a logarithmic scale."""


def no_network() -> OperatorGraph:
    """What is executed where only costs are known.

    Raises:
        InputError: Always.
    """
    raise InputError("no network is known here, only its costs; it needs a study that trains")


@dataclass(frozen=True)
class Measured:
    """What is known of a design before its training.

    Args:
        config: The design.
        cost: Of its deployed network.
        in_channels: Of the images, 1 or 3.
        resolution: Of the images in pixels: the side of squares, or ``(height, width)``.
        n_classes: Number of classes.
        operators: What its deployed network executes for one image; computed when it is called. It raises an
            :class:`~naskd.spec.errors.InputError` where no network is known, as in a replay.
        latency: What the study predicts latencies by; None where it names no profile.
    """

    config: TrialConfig
    cost: Cost
    in_channels: int
    resolution: Size
    n_classes: int
    operators: Callable[[], OperatorGraph] = field(
        default=no_network, kw_only=True, repr=False, compare=False
    )
    latency: LatencyProfile | None = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True)
class Trained(Measured):
    """What is known of a design after its training, beside what was known before.

    Args:
        config, cost, in_channels, resolution, n_classes, operators, latency: See :class:`Measured`.
        network: What is deployed, on the device and in evaluation mode. To be left as it is.
        data: Images; judge by ``data.val``, which the training has not seen.
        compute: Device, precision and memory layout.
        metrics: By name: ``val_accuracy``, ``train_macs``, ..., what the scheme measures, and the study's objectives up
            to this one.
        curve: One mapping an epoch: ``epoch``, ``val_accuracy``, ``loss``, one entry a loss term or measure.
    """

    network: "nn.Module"
    data: "SearchData"
    compute: "Compute"
    metrics: Mapping[str, float]
    curve: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Outlook:
    """What is known of a study before its first training, for reference points.

    Args:
        designs: Random ones of the space that may be trained.
        n_classes: Number of classes.
        n_train: Number of training images.
        epochs: Of each training.
        training_macs: Multiply-accumulates of a design's training, about, as its ``train_macs`` will say; 0 where that
            is not known.
    """

    designs: Sequence[Measured]
    n_classes: int
    n_train: int
    epochs: int
    training_macs: Callable[[TrialConfig], float] = field(
        default=lambda config: 0.0, repr=False, compare=False
    )


# --- the objectives that naskd brings ------------------------------------------------------------------------------


def val_accuracy(trained: Trained) -> float:
    """Fraction of the validation images that are named right, after the last epoch."""
    return trained.metrics["val_accuracy"]


def balanced_accuracy(trained: Trained) -> float:
    """Mean over the classes of the fraction of their validation images that are named right.

    Brodersen et al., ICPR 2010: who names all images after the largest class has ``1 / K``, however large it is.
    """
    from naskd.training.evaluation import balanced_accuracy as of_predictions
    from naskd.training.evaluation import predict

    val = trained.data.val
    return of_predictions(predict(trained.network, val.images, trained.compute), val.labels)


def macs(measured: Measured) -> float:
    """Multiply-accumulates of one image."""
    return measured.cost.macs


def n_params(measured: Measured) -> float:
    """Trainable parameters of the deployed network."""
    return measured.cost.n_params


def size_bytes(measured: Measured) -> float:
    """Bytes of the deployed network's weights."""
    return measured.cost.size_bytes


def bit_ops(measured: Measured) -> float:
    """MACs of one image, each times the bits of its weight and of its activation."""
    return measured.cost.bit_ops


def peak_memory(measured: Measured) -> float:
    """Bytes of maps that one image needs at once; see :attr:`~naskd.spec.operators.OperatorGraph.peak_bytes`."""
    return measured.operators().peak_bytes


def latency_ms(measured: Measured) -> float:
    """Milliseconds of one image on the device of the study's profile, predicted.

    Raises:
        InputError: The study names no profile, or the profile knows no such images or operators.
    """
    if measured.latency is None:
        raise InputError("the study names no latency.profile, which naskd profile writes")
    images = measured.in_channels, measured.resolution, measured.n_classes
    return measured.latency.predict(measured.operators(), *images)


def train_macs(trained: Trained) -> float:
    """Multiply-accumulates of the training, as if no teacher output were remembered."""
    return trained.metrics["train_macs"]


def forgetting(trained: Trained) -> float:
    """Accuracy that old tasks have lost, in [-1, 1], as the scheme has measured it.

    0 of a design that learns all classes at once: it has no old tasks. So has one of a single task.
    """
    return trained.metrics.get("forgetting", 0.0)


def chance(outlook: Outlook) -> float:
    """Accuracy of who guesses."""
    return 1.0 / outlook.n_classes


def everything(outlook: Outlook) -> float:
    """Forgetting of who knew all of the old tasks, and now knows nothing."""
    return 1.0


def most_train_macs(outlook: Outlook) -> float:
    """Three passes over the data an epoch by the largest design; a third more for evaluation.

    Of designs with unlabelled images the data are as many more. Where it is known what is trained beside a student, and
    what its teachers take, it is that of the dearest training, with a third more for what losses add.
    """
    largest = max((d.cost.macs * (1 + d.config.distillation.unlabelled) for d in outlook.designs), default=1)
    alone = float(largest) * outlook.epochs * outlook.n_train * 4
    return max([alone, *(4 / 3 * outlook.training_macs(design.config) for design in outlook.designs)])


# --- computing them ------------------------------------------------------------------------------------------------


def objective_value(objective: Objective, measured: Measured) -> float:
    """The value of an objective.

    Args:
        objective: A registered one.
        measured: A :class:`Trained` where the objective is known after training.

    Raises:
        ObjectiveError: It raises, or its value cannot stand; the message begins with its name.
    """
    value = _called(objective, objective.implementation, measured)
    if problem := value_problem(objective, value):
        raise ObjectiveError(f"objective {objective.name}: {problem}")
    return value


def reference_value(objective: Objective, outlook: Outlook) -> float:
    """What no design should be worse than, of an objective that is known after training alone.

    Raises:
        ObjectiveError: As for :func:`objective_value`.
    """
    value = _called(objective, objective.reference, outlook)
    if problem := value_problem(objective, value):
        raise ObjectiveError(f"objective {objective.name}: its reference: {problem}")
    return value


def _called(objective: Objective, function: str | Callable[..., Any], known: Any) -> float:
    try:
        value = imported(function)(known)
        number = real_number(value)
    except USERS as error:  # a user's objective may raise anything; the answer names it
        raise ObjectiveError(f"objective {objective.name}: {one_line(error)}") from error
    if number is None:
        raise ObjectiveError(
            f"objective {objective.name}: it returned {value!r:.60} ({type(value).__name__}); "
            "it must return a real number"
        )
    return number


def value_problem(objective: Objective, value: float) -> str:
    """Why a number cannot be a value of an objective; empty when it can."""
    if not math.isfinite(value):
        return f"{value} is no finite number"
    if objective.scale == "log" and value <= 0:
        return f"{value:g} has no logarithm, and its scale is log"
    return ""
