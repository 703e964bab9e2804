"""The contract of a scheme, and the phases that a training loop executes without knowing any scheme."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from naskd.data.images import SearchData
from naskd.knowledge.base import Mixed, Summary, require_scalar
from naskd.knowledge.source import KnowledgeSource
from naskd.schemes import SCHEMES
from naskd.spec.compat import renamed
from naskd.spec.design import ArchitectureSpec, Cost, DistillationSpec, TrainingSpec
from naskd.spec.errors import InputError, undefined
from naskd.spec.option import OptionValue
from naskd.spec.sizes import Size

UNLABELLED = -100
"""The label of an image of which nobody says what is on it: cross-entropy is 0 there, and has no gradient."""


class TrainingOverError(ArithmeticError):
    """Nothing good can come of a training any more; it ends as failed, with this reason, and what it cost is booked."""


class CollapsedError(TrainingOverError):
    """A player of a phase has stopped to be one, such as a discriminator that nobody can fool."""


OF_A_PLAYER = ("optimizer", "learning_rate", "weight_decay", "momentum", "schedule")
"""Fields of a :class:`~naskd.spec.design.TrainingSpec` that players of one phase may have different."""


@dataclass(frozen=True)
class Batch:
    """Training images as the networks see them.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], augmented.
        labels: ``(B,)`` class indices, or :data:`UNLABELLED`.
        index: ``(B,)`` positions in the set that the images are of.
        view: ``(B,)`` identities of the views drawn.
        epoch: From 0.
        mixed: Where each image is made of two.
        known: Whether the set is the training split. Of other images nothing is remembered between trainings.
        partly_labelled: Whether unlabelled images are among them: others, which have positions beyond the training
            split's, some of a phase's own, or all of them, where students learn without labels.
        classes, class_weights: See :class:`~naskd.knowledge.base.Lesson`.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    view: Tensor
    epoch: int
    mixed: Mixed | None = None
    known: bool = True
    partly_labelled: bool = False
    classes: Tensor | None = None
    class_weights: Tensor | None = None

    @staticmethod
    def made(images: Tensor, epoch: int, labels: Tensor | None = None) -> "Batch":
        """Of images that a scheme made itself, ``(B, C, H, W)`` in [0, 1], with labels or without."""
        index, unlabelled = torch.arange(len(images), device=images.device), labels is None
        if labels is None:
            labels = torch.full_like(index, UNLABELLED)
        view = torch.zeros_like(index)
        return Batch(images, labels, index, view, epoch, known=False, partly_labelled=unlabelled)


@dataclass(frozen=True)
class Update:
    """One optimizer step: the loop back-propagates `loss` and steps the named optimizer before it asks for the next.

    Args:
        optimizer: A key of the phase's ``trained``.
        loss: Scalar.
        terms: Detached scalars for the learning curve.
    """

    optimizer: str
    loss: Tensor
    terms: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        require_scalar(self.loss, "the loss of an Update")
        for name, term in self.terms.items():
            require_scalar(term, f"the term {name!r} of an Update")


Asked = Sequence[Summary]
"""What teachers said of a batch."""

Step = Callable[[Batch, Asked], Iterator[Update]]
"""Turns a batch, and what was asked for it, into updates."""

Ask = Callable[[Batch], Asked]


def ask_nobody(batch: Batch) -> Asked:
    """For a phase without teachers."""
    return ()


@dataclass(frozen=True, eq=False)
class PhaseData:
    """Images that a phase trains on in place of the training split; they are augmented as the design says.

    Args:
        images: ``(N, C, H, W)`` uint8 of the size of the study's, N at least ``Phase.min_batch``.
        labels: ``(N,)`` class indices, or :data:`UNLABELLED`, on the device; None: nobody says what any image shows.
        streamed: Images stay in the host's memory.
    """

    images: Tensor
    labels: Tensor | None = None
    streamed: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def all_labelled(self) -> bool:
        """Whether somebody says of every image what is on it."""
        return self.labels is not None and bool((self.labels != UNLABELLED).all())


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    A step is a generator of updates: alternating players (mutual learning, a generator against its student)
    yield in turn, and each sees what the other's step has changed. Nothing in the loop depends on how many there are,
    or on how often a player moves in one batch.

    Args:
        name: For curves and messages.
        epochs: Length.
        trained: Modules that each optimizer trains; one optimizer a name, made afresh for the phase. What no
            optimizer trains is in evaluation mode meanwhile.
        step: Turns a batch, and what was asked for it, into updates.
        ask: What frozen networks say of a batch, before its step, from memory or by a forward pass.
        ask_images: At least 1. Several batches of up to so many images together may be asked about at once, before
            their steps: a question costs its launches. Every tensor of the answer has one row a sample then.
        min_batch: Smallest batch that `step` can take.
        batches: Where batches come from: called with the epoch from 0; None: the training split, or `data`.
        repeats: Every `step` on batches of one size does the same operations on the device: none depends on a value, on
            the epoch or on anything that Python counts. A GPU then replays a recording of one.
        settings: What an optimizer has different from the design's training, by its name: values of
            :data:`OF_A_PLAYER`.
        steps_per_epoch: Of a phase with its own `batches`, each of the design's batch size: as many are taken, and
            schedules and costs follow from it. None: as many as the training split has.
        data: Images in place of the training split; None: the split.
        samples: ``(N,)`` positions in the training split, on the CPU, N at least `min_batch`: it trains on these alone.
            Teachers remember what they said of them. None: on the whole split.
        before_epoch: Called before each epoch with its number within the phase, from 0. Here stale copies of a peer are
            refreshed, or a student becomes its successor's teacher. What it sets must be in the scheme's state.
        after_epoch: Called after each whole epoch with the means of the loss and of its terms, all finite. It may raise
            a :class:`CollapsedError`. What it sets must be in the scheme's state.

    Raises:
        InputError: These do not fit each other.
    """

    name: str
    epochs: int
    trained: Mapping[str, Sequence[nn.Module]]
    step: Step
    ask: Ask = ask_nobody
    ask_images: int = 1
    min_batch: int = 2
    batches: Callable[[int], Iterator[Batch]] | None = None
    repeats: bool = False
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    steps_per_epoch: int | None = None
    data: PhaseData | None = None
    samples: Tensor | None = None
    before_epoch: Callable[[int], None] | None = None
    after_epoch: Callable[[Mapping[str, float]], None] | None = None

    def __post_init__(self) -> None:
        own = {"batches": self.batches, "data": self.data, "samples": self.samples}
        given = [name for name, images in own.items() if images is not None]
        if len(given) > 1:
            raise InputError(f"phase {self.name!r} has both {' and '.join(given)}; give one of them")
        if self.steps_per_epoch is not None and (self.batches is None or self.steps_per_epoch < 1):
            raise InputError(
                f"phase {self.name!r} has steps_per_epoch = {self.steps_per_epoch}; "
                "allowed: at least 1, of a phase that brings its own batches"
            )
        for player, changes in self.settings.items():
            if player not in self.trained:
                raise InputError(f"phase {self.name!r} has settings for {player!r}, which it does not train")
            if strange := sorted(set(changes) - set(OF_A_PLAYER)):
                raise InputError(
                    f"phase {self.name!r} changes {', '.join(strange)} of {player!r}; allowed: {', '.join(OF_A_PLAYER)}"
                )

    def images_per_epoch(self, n_train: int, batch_size: int) -> int:
        """Images that an epoch trains on, where no last batch is left out.

        Args:
            n_train: Of the training split.
            batch_size: Of the design.
        """
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch * batch_size
        if self.data is not None:
            return len(self.data)
        return n_train if self.samples is None else len(self.samples)

    def training_of(self, player: str, design: TrainingSpec) -> TrainingSpec:
        """How a player is trained.

        Args:
            player: A key of `trained`.
            design: How the whole is.
        """
        return replace(design, **self.settings.get(player, {}))


def recordable(step: Step, modules: Sequence[nn.Module]) -> bool:
    """Whether all that a step executes is known to do the same each time.

    Of code from elsewhere nobody knows, unless its class, or the step's, says ``repeats = True``.
    """
    call: Any = step
    while isinstance(call, partial):
        call = call.func
    owner = getattr(call, "__self__", None)
    found: set[Any] = {type(part) for module in modules for part in module.modules()}
    found.add(call if owner is None else type(owner))
    return all(
        getattr(kind, "repeats", kind.__module__.partition(".")[0] in ("naskd", "torch")) for kind in found
    )


@dataclass(frozen=True)
class SchemeInputs:
    """What a scheme is built from.

    Args:
        distillation: How the student is taught.
        epochs: Of the whole schedule.
        build: Makes a fresh network of the design's architecture on the training device; called once for
            each network that the scheme trains.
        sources: Knowledge of each teacher in ``distillation.teachers``, in that order; empty where nobody asks them.
        in_channels, resolution: Of the images.
        n_samples: Of the training split.
        labels: ``(n_samples,)`` class indices of the training split, on the CPU; None where nobody knows them.
        batch_size: Images of a batch, for schemes that bring their own; 0 where nothing is trained.
        architecture: Of what `build` makes; None for a network that no architecture describes.
        variant: Makes a fresh network of another architecture on the same images.
        derived: The same of one that begins as what `build` makes does: with a teacher's weights, where that has them.
        data: The images of the search; None where there are none, as in a check.
        place: Of a scheme of networks that train apart, which of them this is, from 0, which leaves; None: all train
            together. See :class:`~naskd.schemes.apart.PeerScheme`.
    """

    distillation: DistillationSpec
    epochs: int
    build: Callable[[], nn.Module]
    sources: tuple[KnowledgeSource, ...]
    in_channels: int
    resolution: Size
    n_samples: int = 0
    labels: Tensor | None = None
    batch_size: int = 0
    architecture: ArchitectureSpec | None = None
    variant: Callable[[ArchitectureSpec], nn.Module] | None = None
    derived: Callable[[ArchitectureSpec], nn.Module] | None = None
    data: SearchData | None = None
    place: int | None = None

    def option(self, name: str) -> OptionValue:
        """The value of an option of the design's scheme, or its default."""
        return SCHEMES[self.distillation.scheme].option(self.distillation, name)

    def build_variant(self, architecture: ArchitectureSpec) -> nn.Module:
        """See `variant`."""
        assert self.variant is not None
        return self.variant(architecture)

    def build_derived(self, architecture: ArchitectureSpec) -> nn.Module:
        """See `derived`; of the design's own architecture, what `build` makes.

        Raises:
            InputError: Such a network cannot begin with the teacher's weights.
        """
        if architecture == self.architecture:
            return self.build()
        return self.build_variant(architecture) if self.derived is None else self.derived(architecture)


@dataclass(frozen=True, eq=False)
class Sibling:
    """Another network of a training that may leave, as the student of a design of its own.

    Args:
        options: In which that design differs: options of the scheme that say which network leaves, with their values.
        network: What leaves then, a :class:`~naskd.nn.deployed.DeployedNetwork`. It shares modules with the rest.
        cost: Of it.
    """

    options: Mapping[str, OptionValue]
    network: nn.Module
    cost: Cost


class Scheme(nn.Module):
    """Owns the networks that train together. Its ``state_dict`` is all that a checkpoint has to keep of them.

    Frozen teachers are no part of it: they are stored once, elsewhere.
    """

    earlier_names: ClassVar[Mapping[str, str]] = {}
    """How names in states that earlier versions wrote begin, and how they begin now."""

    measured: tuple[str, ...] = ()
    """Names that :meth:`measures` may give; empty for a scheme that measures nothing of its own."""

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__()
        self.inputs = inputs
        if self.earlier_names:
            self.register_load_state_dict_pre_hook(_read_earlier_names)  # type: ignore[no-untyped-call]  # torch's is not annotated

    @property
    def deployed(self) -> nn.Module:
        """The network that is evaluated and leaves."""
        raise undefined(self, "deployed")

    @property
    def cost(self) -> Cost:
        """Of the deployed network."""
        raise undefined(self, "cost")

    @property
    def siblings(self) -> tuple[Sibling, ...]:
        """What else may leave after the same training, but for :attr:`deployed`; each is a design of its own.

        A search evaluates them after each epoch, and books a point for each. For this, options of the card are marked
        with `leaves`. A scheme that has :attr:`measured` names may have none: what it measures is of one network.
        """
        return ()

    @property
    def evaluated_macs(self) -> int:
        """MACs of one image of :attr:`deployed` as it is and trains now; another one may leave in the end."""
        return self.cost.unmerged_macs

    @property
    def leaves_from(self) -> int:
        """Epochs after which :attr:`deployed` is what leaves; before, another network trains and is evaluated."""
        return 0

    def phases(self) -> tuple[Phase, ...]:
        """In order. Their lengths add up to the design's epochs, initial stages included."""
        raise undefined(self, "phases")

    def measures(
        self, logits: Tensor, labels: Tensor, curve: Sequence[Mapping[str, float]]
    ) -> Mapping[str, float]:
        """What a scheme says of the deployed network after an epoch, beside its accuracy.

        It is asked only where :attr:`measured` has names, and computed from an evaluation that is made anyhow.

        Args:
            logits: ``(N, K)`` of the validation images, in 32 bits.
            labels: ``(N,)`` of these.
            curve: One row for each earlier epoch, with what was measured then.

        Returns:
            Finite numbers by name, of :attr:`measured`; what is not defined yet is left out.
        """
        return {}

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Forward MACs for one image in a phase.

        Returns:
            Of what is trained (its backward pass costs twice that again), and of teachers that are only asked.
        """
        raise undefined(self, "step_macs")

    def forward_macs(self, batch_size: int, phase: Phase) -> float:
        """Forward MACs for one image in a phase, of passes of its own networks that nothing is learned from.

        A frozen copy of the student says what it thinks of a batch, or a peer says so anew after it has moved.
        Teachers are in :meth:`step_macs`: what they say may come from memory, and these passes never do.
        """
        return 0.0

    def through_macs(self, batch_size: int, phase: Phase) -> float:
        """MACs for one image in a phase, of backward passes through frozen layers to what is learned before them.

        That may be what made the images. Such a pass costs as much as the forward one; 0 unless you say more.
        """
        return 0.0


def _read_earlier_names(scheme: nn.Module, state: dict[str, Any], *_: Any) -> None:
    assert isinstance(scheme, Scheme)
    renamed(scheme.earlier_names, state)
