"""The student: what an :class:`~naskd.spec.design.ArchitectureSpec` describes, and what it costs."""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from naskd.networks import BLOCKS
from naskd.networks.block import Block
from naskd.networks.layers import conv_norm, conv_norm_cost, linear_cost, strided, total
from naskd.nn.deployed import Description
from naskd.nn.layout import keep_layout, spatial_mean
from naskd.nn.taps import Tap, Taps, TapShape, TapShapes
from naskd.spec.design import ArchitectureSpec, Cost
from naskd.spec.errors import InputError

_ARCHITECTURE = TypeAdapter(ArchitectureSpec)


class Student(nn.Module):
    """Normalisation, stem, stages, global average pooling and a linear classifier.

    Args:
        spec: The design.
        in_channels: Of the images.
        n_classes: ``K``.
        mean, std: Of the images on the [0, 1] scale, one value per channel; buffers, so that they travel
            with the weights.

    Raises:
        ValueError: A block is unknown, or a number is out of range.
    """

    mean: Tensor
    std: Tensor

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
        stem = conv_norm(in_channels, spec.stem_width, spec.stem_kernel, spec.stem_stride)
        self.stem = nn.Sequential(*stem, nn.ReLU())
        self.stages = nn.ModuleList()
        channels = spec.stem_width
        for stage in spec.stages:
            block_class = block_type(stage.block)
            blocks = [block_class(channels, stage, stage.stride)]
            blocks += [block_class(stage.width, stage, 1) for _ in range(stage.depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
            channels = stage.width
        self.head: nn.Module = nn.Linear(channels, n_classes)
        self._initialise()

    def _initialise(self) -> None:
        # He et al., ICCV 2015 (arXiv 1502.01852), eq. 14. The last BatchNorm of a residual branch keeps its
        # gain of 1: at 0 (Goyal et al., 2017, arXiv 1706.02677) the branches would get no gradient in the
        # first step, which is where "balanced" weights are measured. For the same reason the classifier
        # keeps torch's scale: a tiny one would scale cross-entropy's gradient at the taps, and with it
        # every balanced weight, towards 0.
        for module in self.modules():
            if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and module is not self.head):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def remove_classifier(self) -> None:
        """Leave the pooled features as they are; for students that use another network's classifier."""
        self.head = nn.Identity()

    def _stem(self, images: Tensor) -> Tensor:
        output: Tensor = self.stem((images - self.mean) / self.std)
        return output

    def _classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = spatial_mean(features)
        return pooled, self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` of images in [0, 1], ``(B, C, H, W)`` float."""
        x = self._stem(images)
        for stage in self.stages:
            x = stage(x)
        return self._classify(x)[1]

    def taps(self, images: Tensor) -> Taps:
        """Logits, every stage's output before and after its last activation, and what the classifier sees.

        The ``i``-th of ``n`` stages has position ``(i + 1) / n``.
        """
        x = self._stem(images)
        stages, pre_activations = [], []
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, nn.Sequential)
            last = stage[-1]
            assert isinstance(last, Block)
            for block in list(stage)[:-1]:
                x = block(x)
            before = last.pre_activation(x)
            x = keep_layout(last.activation(before))
            position = (index + 1) / len(self.stages)
            pre_activations.append(Tap(before, "map", position))
            stages.append(Tap(x, "map", position))
        pooled, logits = self._classify(x)
        return Taps(logits, tuple(stages), tuple(pre_activations), pooled)

    def pre_activation_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """For each stage, the BatchNorm that ends its last main branch; None without one."""
        lasts = [stage[-1] for stage in self.stages if isinstance(stage, nn.Sequential)]
        return tuple(last.last_norm for last in lasts if isinstance(last, Block))

    def describe(self) -> dict[str, Any]:
        """See :class:`~naskd.nn.deployed.DeployedNetwork`."""
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return describe_student(self.spec, self.n_classes, mean, std)


def describe_student(
    spec: ArchitectureSpec, n_classes: int, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """What :func:`build_student` needs to build a network again, as a :data:`~naskd.nn.deployed.Description`."""
    architecture = _ARCHITECTURE.dump_python(spec, mode="json")
    return {
        "kind": "student",
        "architecture": architecture,
        "n_classes": n_classes,
        "mean": list(mean),
        "std": list(std),
    }


def rebuild_student(description: Description) -> nn.Module:
    """The inverse of :func:`describe_student`."""
    spec = _ARCHITECTURE.validate_python(description["architecture"])
    mean, std = description["mean"], description["std"]
    return build_student(spec, len(mean), description["n_classes"], mean, std)


def build_student(
    spec: ArchitectureSpec,
    in_channels: int,
    n_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Student:
    """A fresh :class:`Student` (see there), its weights drawn from torch's global generator."""
    return Student(spec, in_channels, n_classes, mean, std)


def design_cost(spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: int) -> Cost:
    """What the student of a design costs; nothing is built, unless a block has no closed form.

    Args:
        spec: The design.
        in_channels: Of the images.
        n_classes: ``K``.
        resolution: Side of the images.

    Returns:
        MACs of the convolutions and matrix products of one evaluation pass of one image; trainable
        parameters; bytes of the state dict: parameters, BatchNorm's running statistics, mean and std of the
        images in 32 bits, BatchNorm's counters in 64.

    Raises:
        ValueError: A block is unknown.
    """
    size = strided(resolution, spec.stem_stride)
    image_statistics = Cost(macs=0, n_params=0, size_bytes=4 * 2 * in_channels)
    parts = [
        image_statistics,
        conv_norm_cost(in_channels, spec.stem_width, spec.stem_kernel, size, size),
    ]
    channels = spec.stem_width
    for stage in spec.stages:
        block_class = block_type(stage.block)
        parts.append(block_class.cost(channels, stage, stage.stride, size, size))
        size = strided(size, stage.stride)
        if stage.depth > 1:
            one = block_class.cost(stage.width, stage, 1, size, size)
            parts += [one] * (stage.depth - 1)
        channels = stage.width
    parts.append(linear_cost(channels, n_classes))
    return total(parts)


def student_shapes(spec: ArchitectureSpec, n_classes: int, resolution: int) -> TapShapes:
    """Shapes of the taps of a design's student; nothing is built. See :meth:`Student.taps`."""
    size, found = strided(resolution, spec.stem_stride), []
    for index, stage in enumerate(spec.stages):
        size = strided(size, stage.stride)
        found.append(TapShape(stage.width, (size, size), "map", (index + 1) / len(spec.stages)))
    return TapShapes(n_classes, tuple(found), tuple(found), spec.stages[-1].width)


def block_type(name: str) -> type[Block]:
    """The class of a registered block.

    Raises:
        InputError: The name is unknown, or what it names is no :class:`~naskd.networks.block.Block`.
    """
    found = BLOCKS.load(name)
    if not (isinstance(found, type) and issubclass(found, Block)):
        raise InputError(f"block {name!r} is {found!r}, which is no subclass of naskd.networks.block.Block")
    return found
