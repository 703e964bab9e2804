"""The student: what an :class:`~naskd.spec.design.ArchitectureSpec` of any family describes, and what it costs."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from naskd.networks import FAMILIES
from naskd.nn.cost import network_cost
from naskd.nn.deployed import Description
from naskd.nn.merging import is_merged, merge
from naskd.nn.taps import Taps, TapShapes, tap_shapes
from naskd.nn.tracing import operators_of
from naskd.spec.design import ArchitectureSpec, Cost
from naskd.spec.errors import InputError, undefined
from naskd.spec.operators import OperatorGraph
from naskd.spec.places import named
from naskd.spec.sizes import Size

_ARCHITECTURE = TypeAdapter(ArchitectureSpec)


class Student(nn.Module):
    """A classifier of images that a design describes; what every family of networks is made of.

    A subclass builds its layers in ``__init__``, sets :attr:`head` to the ``nn.Linear`` that turns the pooled features
    into the logits, and writes :meth:`taps`. It may override :meth:`forward`, which else computes all taps, and
    :meth:`cost`, :meth:`operators` and :meth:`shapes` with closed forms. It is not told the resolution: one network
    takes images of any size.

    Args:
        spec: The design.
        in_channels: Of the images, at least 1.
        n_classes: ``K``, at least 2.
        mean, std: Of the images on the [0, 1] scale, one value per channel; buffers, so that they travel
            with the weights.

    Raises:
        ValueError: A number is out of range.
    """

    mean: Tensor
    std: Tensor
    head: nn.Module

    def __init__(
        self,
        spec: ArchitectureSpec,
        in_channels: int,
        n_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        if in_channels < 1 or n_classes < 2:
            raise ValueError(
                f"in_channels must be at least 1 and n_classes at least 2, got {in_channels} and {n_classes}"
            )
        if len(mean) != in_channels or len(std) != in_channels or min(std) <= 0:
            raise ValueError(
                f"mean and std need one value for each of the {in_channels} channels, std above 0; "
                f"got {tuple(mean)} and {tuple(std)}"
            )
        self.spec = spec
        self.n_classes = n_classes
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def normalised(self, images: Tensor) -> Tensor:
        """Images in [0, 1], ``(B, C, H, W)``, as the layers are to see them: of the design's resolution, if it has one.

        Raises:
            InputError: They have another number of channels, or are whole numbers. One channel would otherwise count as
                all of them, and bytes as images that are 255 times as bright.
        """
        if not images.is_floating_point():
            raise InputError(
                f"the network takes real numbers in [0, 1], got {images.dtype}; of bytes that is images.float() / 255"
            )
        if images.shape[-3] != self.mean.shape[1]:
            raise InputError(
                f"the network takes images of {self.mean.shape[1]} channels, (B, C, H, W), got {tuple(images.shape)}"
            )
        side = self.spec.resolution
        if side is not None and images.shape[-2:] != (side, side):
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return (images - self.mean) / self.std

    def taps(self, images: Tensor) -> Taps:
        """Logits, what the classifier sees, and as many stages as the family's card says, of images in [0, 1]."""
        raise undefined(self, "taps")

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1], ``(B, C, H, W)`` float."""
        return self.taps(images).logits

    def remove_classifier(self) -> None:
        """Leave the pooled features as they are; for students that use another network's classifier."""
        self.head = nn.Identity()

    def take_weights(self, other: nn.Module) -> None:
        """Begin with the weights of a network of the same family, which is as wide and deep or more.

        The family's card says which (:meth:`~naskd.networks.card.FamilyCard.start_problems`).

        Raises:
            InputError: This family has no way to do it, or `other` is no such network.
        """
        raise InputError(
            f"network family {self.spec.family!r} has no take_weights: its students start from scratch"
        )

    @classmethod
    def read(cls, family: str, network: nn.Module) -> "Student":
        """A network that naskd has not made as one of this family, a copy on the CPU in evaluation mode.

        Args:
            family: Under which this class is registered.
            network: As a teacher holds it; it is not changed.

        Raises:
            InputError: It is none of this family, or the family reads no networks of others.
        """
        raise InputError(
            f"a {type(network).__name__} is no network of naskd's, and network family {family!r} reads no others"
        )

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """For each stage, the BatchNorm that ends its last main branch; None without one."""
        return (None,) * FAMILIES[self.spec.family].n_stages(self.spec)

    @classmethod
    def cost(cls, spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: Size) -> Cost:
        """See :func:`design_cost`; `resolution` is what its layers see.

        This one builds the network on the ``meta`` device and counts.
        """
        return network_cost(cls._on_meta(spec, in_channels, n_classes), in_channels, resolution)

    @classmethod
    def operators(
        cls, spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: Size
    ) -> OperatorGraph:
        """See :func:`design_operators`. This one runs the network on the ``meta`` device."""
        return operators_of(cls._on_meta(spec, in_channels, n_classes), in_channels, resolution)

    @classmethod
    def shapes(cls, spec: ArchitectureSpec, n_classes: int, resolution: Size) -> TapShapes:
        """See :func:`student_shapes`; `resolution` is what its layers see.

        This one runs the network on the ``meta`` device, on images of 3 channels.
        """
        return tap_shapes(cls._on_meta(spec, 3, n_classes), 3, resolution)

    @classmethod
    def _on_meta(cls, spec: ArchitectureSpec, in_channels: int, n_classes: int) -> "Student":
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return cls(spec, in_channels, n_classes, (0.0,) * in_channels, (1.0,) * in_channels)

    def describe(self) -> dict[str, Any]:
        """See :class:`~naskd.nn.deployed.DeployedNetwork`."""
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return describe_student(self.spec, self.n_classes, mean, std, merged=is_merged(self))


def describe_student(
    spec: ArchitectureSpec,
    n_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    merged: bool = False,
) -> dict[str, Any]:
    """What :func:`build_student` needs to build a network again, as a :data:`~naskd.nn.deployed.Description`.

    Args:
        spec: Of the network.
        n_classes: ``K``.
        mean: Of the images, per channel, on the [0, 1] scale.
        std: As `mean`.
        merged: Whether its branches are, see :mod:`naskd.nn.merging`.
    """
    architecture = _ARCHITECTURE.dump_python(spec, mode="json")
    return {
        "kind": "student",
        "architecture": architecture,
        "n_classes": n_classes,
        "mean": list(mean),
        "std": list(std),
        **({"merged": True} if merged else {}),
    }


def rebuild_student(description: Description) -> nn.Module:
    """The inverse of :func:`describe_student`."""
    spec = _ARCHITECTURE.validate_python(description["architecture"])
    mean, std = description["mean"], description["std"]
    student = build_student(spec, len(mean), description["n_classes"], mean, std)
    if description.get("merged"):
        merge(student)
    return student


def build_student(
    spec: ArchitectureSpec,
    in_channels: int,
    n_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Student:
    """A fresh :class:`Student` (see there) of the design's family, its weights drawn from torch's global generator.

    Raises:
        InputError: The family or a block is unknown, or the family's card turns the design away.
    """
    return family_type(spec)(spec, in_channels, n_classes, mean, std)


def design_cost(spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: Size) -> Cost:
    """What the student of a design costs; nothing is built, unless its family or a block has no closed form.

    Args:
        spec: The design.
        in_channels: Of the images.
        n_classes: ``K``.
        resolution: Of the images, to which a design that resizes them pays no heed.

    Returns:
        MACs of the convolutions and matrix products of one evaluation pass of one image; trainable
        parameters; bytes of the state dict: parameters, BatchNorm's running statistics, mean and std of the
        images in 32 bits, BatchNorm's counters in 64; and bit operations. For layers of fewer bits see
        :class:`~naskd.spec.design.Cost`.

    Raises:
        InputError: See :func:`build_student`.
    """
    return family_type(spec).cost(spec, in_channels, n_classes, spec.resolution or resolution)


def design_operators(
    spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: Size
) -> OperatorGraph:
    """What the student of a design executes for one image; for arguments and errors see :func:`design_cost`.

    No weight is allocated. A family that overrides :meth:`Student.operators` gives the same as a run of its network.
    """
    return family_type(spec).operators(spec, in_channels, n_classes, resolution)


def student_shapes(spec: ArchitectureSpec, n_classes: int, resolution: Size) -> TapShapes:
    """Shapes of the taps of a design's student; nothing is built where its family has a closed form.

    Raises:
        InputError: See :func:`build_student`; or the network shows another number of stages than its card says.
    """
    found = family_type(spec).shapes(spec, n_classes, spec.resolution or resolution)
    said = FAMILIES[spec.family].n_stages(spec)
    if len(found.stages) != said:
        raise InputError(
            f"network family {spec.family!r} shows {len(found.stages)} stages, but its card says n_stages = {said}"
        )
    return found


def family_type(spec: ArchitectureSpec) -> type[Student]:
    """The class of a design's network.

    Raises:
        InputError: The family is unknown, what it names is no :class:`Student`, or its card turns the design away.
    """
    card, found = FAMILIES[spec.family], FAMILIES.load(spec.family)
    if not (isinstance(found, type) and issubclass(found, Student)):
        raise InputError(
            f"network family {spec.family!r} is {named(found)}, which is no subclass of naskd.networks.student.Student"
        )
    if problems := card.problems(spec):
        raise InputError(problems)
    return found
