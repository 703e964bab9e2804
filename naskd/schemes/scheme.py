"""The contract of a scheme, and the phases that a training loop executes without knowing any scheme."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from naskd.knowledge.base import Mixed, Summary
from naskd.knowledge.source import KnowledgeSource
from naskd.schemes import SCHEMES
from naskd.spec.design import ArchitectureSpec, Cost, DistillationSpec
from naskd.spec.option import OptionValue


@dataclass(frozen=True)
class Batch:
    """Training images as the networks see them.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], augmented.
        labels: ``(B,)`` class indices.
        index: ``(B,)`` positions in the training split.
        view: ``(B,)`` identities of the views drawn.
        epoch: From 0.
        mixed: Where each image is made of two.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    view: Tensor
    epoch: int
    mixed: Mixed | None = None


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


Asked = Sequence[Summary]
"""What teachers said of a batch."""


def ask_nobody(batch: Batch) -> Asked:
    """For a phase without teachers."""
    return ()


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    A step is a generator of updates: alternating players (mutual learning, a generator against its student)
    yield in turn, and each sees what the other's step has changed. Nothing in the loop depends on how many there are.

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
        batches: Where batches come from: called with the epoch from 0; None: the training split.
        repeats: Every `step` on batches of one size does the same operations on the device: none depends on a value, on
            the epoch or on anything that Python counts. A GPU then replays a recording of one.
    """

    name: str
    epochs: int
    trained: Mapping[str, Sequence[nn.Module]]
    step: Callable[[Batch, Asked], Iterator[Update]]
    ask: Callable[[Batch], Asked] = ask_nobody
    ask_images: int = 1
    min_batch: int = 2
    batches: Callable[[int], Iterator[Batch]] | None = None
    repeats: bool = False


@dataclass(frozen=True)
class SchemeInputs:
    """What a scheme is built from.

    Args:
        distillation: How the student is taught.
        epochs: Of the whole schedule.
        build: Makes a fresh network of the design's architecture on the training device; called once for
            each network that the scheme trains.
        sources: Knowledge of each teacher in ``distillation.teachers``, in that order; empty without terms.
        in_channels, resolution: Of the images.
        n_samples: Of the training split.
        architecture: Of what `build` makes; None for a network that no architecture describes.
        variant: Makes a fresh network of another architecture on the same images.
    """

    distillation: DistillationSpec
    epochs: int
    build: Callable[[], nn.Module]
    sources: tuple[KnowledgeSource, ...]
    in_channels: int
    resolution: int
    n_samples: int = 0
    architecture: ArchitectureSpec | None = None
    variant: Callable[[ArchitectureSpec], nn.Module] | None = None

    def option(self, name: str) -> OptionValue:
        """The value of an option of the design's scheme, or its default."""
        return SCHEMES[self.distillation.scheme].option(self.distillation, name)

    def build_variant(self, architecture: ArchitectureSpec) -> nn.Module:
        """See `variant`."""
        assert self.variant is not None
        return self.variant(architecture)


class Scheme(nn.Module):
    """Owns the networks that train together. Its ``state_dict`` is all that a checkpoint has to keep of them.

    Frozen teachers are no part of it: they are stored once, elsewhere.
    """

    def __init__(self, inputs: SchemeInputs) -> None:
        super().__init__()
        self.inputs = inputs

    @property
    def deployed(self) -> nn.Module:
        """The network that is evaluated and leaves."""
        raise NotImplementedError

    @property
    def cost(self) -> Cost:
        """Of the deployed network."""
        raise NotImplementedError

    def phases(self) -> tuple[Phase, ...]:
        """In order. Their lengths add up to the design's epochs, initial stages included."""
        raise NotImplementedError

    def step_macs(self, batch_size: int, phase: Phase) -> tuple[float, float]:
        """Forward MACs for one image in a phase.

        Returns:
            Of what is trained (its backward pass costs twice that again), and of what is only asked.
        """
        raise NotImplementedError
