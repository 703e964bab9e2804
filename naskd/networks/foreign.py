"""A classifier that was not made by naskd, shown as a tapped network."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from naskd.networks.tap_points import (
    MOST_TOKENS_BEFORE,
    TapPoint,
    TapPoints,
    Watch,
    find_tap_points,
    first_output,
)
from naskd.nn.layout import spatial_mean
from naskd.nn.taps import Tap, Taps
from naskd.spec.errors import InputError


class Preprocessing(nn.Module):
    """Between images in [0, 1] and a foreign network: size, channels, normalisation, in this order.

    Args:
        resolution: Side to which images are resized, bilinear with antialiasing; None leaves them.
        channels: What the network wants; one channel is repeated to three.
        mean, std: On the [0, 1] scale, one value or one per channel of the network; None leaves the values
            in [0, 1].

    Raises:
        InputError: The numbers do not fit each other.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        resolution: int | None = None,
        channels: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.channels = resolution, channels
        mean, std = mean or (0.0,), std or (1.0,)
        allowed = {1, channels or len(mean)}
        if len(mean) not in allowed or len(std) not in allowed or min(std) <= 0:
            raise InputError(
                f"mean {tuple(mean)} and std {tuple(std)} need one value or one for each of the network's "
                f"{channels} input channels, std above 0"
            )
        # They come from the study file, not from the weights, so they are no part of the state.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` float in [0, 1] to what the network wants."""
        side = self.resolution
        if side is not None and images.shape[2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
        if self.channels is not None and images.shape[1] == 1 and self.channels > 1:
            images = images.expand(-1, self.channels, -1, -1)
        return (images - self.mean) / self.std


class ForeignNetwork(nn.Module):
    """Any classifier as a :class:`~naskd.nn.taps.TappedNetwork` of images in [0, 1]; trainable as it is.

    Stages come from :func:`~naskd.networks.tap_points.find_tap_points`. Where a stage ends in an activation
    module, its input is the pre-activation; elsewhere the two are the same. A class token is left out of
    the taps of a transformer, since it has no place on the grid: ``N = H W + 1`` tokens become ``H W``.
    Features before the classifier (``pooled``) are the input of the last ``nn.Linear``, or the mean of the
    last stage without one.

    Args:
        network: Takes preprocessed images, returns logits (or a tuple that begins with them). It becomes a
            part of this one and is not copied.
        preprocessing: What the network needs.
        image_shape: ``(C, H, W)`` of the images before preprocessing, for the dry run.
        class_order: Position, among the network's outputs, of each of the study's classes; None where they
            agree.
        taps: Names of modules that are the stages; empty: found.
        origin: What made it, for :func:`naskd.networks.teachers.rebuild_foreign`; None for a network that came as an
            object.

    Raises:
        InputError: The network fails on such images, has another number of outputs than `class_order`, or
            cannot be tapped; or the images that it is given are no squares, and its tokens do not say their grid.
    """

    order: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        image_shape: tuple[int, int, int],
        class_order: Sequence[int] | None = None,
        taps: Sequence[str] = (),
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.origin = origin
        self.preprocessing = preprocessing
        self.in_channels = image_shape[0]
        parameter = next(network.parameters(), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        images = torch.zeros(2, *image_shape, device=device)
        given = preprocessing.to(device)(images)
        self.points = find_tap_points(network, given, taps)
        refuse_unknown_grids(given, [(p.layout, p.grid) for p in self.points.stages])
        order = None
        if class_order is not None:
            if sorted(class_order) != list(range(self.points.n_classes)):
                raise InputError(
                    f"the network has {self.points.n_classes} outputs; "
                    f"class_order must name each of them once, got {tuple(class_order)}"
                )
            order = torch.tensor(class_order)
        self.register_buffer("order", order, persistent=False)

    @property
    def n_classes(self) -> int:
        """``K``."""
        return self.points.n_classes

    @property
    def head(self) -> nn.Linear | None:
        """The classifier that turns `pooled` into the logits; None where the network ends otherwise.

        With a class order of its own it is a copy with its rows in the study's order.
        """
        if self.points.head is None or not self.points.head_is_last:
            return None
        linear = self.network.get_submodule(self.points.head[0])
        assert isinstance(linear, nn.Linear)
        if self.order is None:
            return linear
        weight = linear.weight.detach()
        reordered = nn.Linear(linear.in_features, linear.out_features, linear.bias is not None)
        reordered = reordered.to(weight.device, weight.dtype).requires_grad_(False)
        reordered.weight.copy_(weight[self.order])
        if linear.bias is not None:
            reordered.bias.copy_(linear.bias.detach()[self.order])
        return reordered

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)`` in the study's class order."""
        logits = first_output(self.network(self.preprocessing(images)))
        return logits if self.order is None else logits[:, self.order]

    def taps(self, images: Tensor) -> Taps:
        """Logits and everything that was found to tap, from one forward pass.

        Raises:
            InputError: A tapped module was not called: the network takes another way than in the dry run.
        """
        return tapped(self.network, self.points, lambda: self.forward(images))

    def pre_activation_norms(self) -> tuple[None, ...]:
        """Nothing: which BatchNorm describes a foreign pre-activation cannot be told from outside."""
        return (None,) * len(self.points.stages)

    def describe(self) -> dict[str, Any]:
        """See :class:`~naskd.nn.deployed.DeployedNetwork`; :func:`naskd.networks.teachers.rebuild_foreign` reads it.

        Raises:
            InputError: It came as an object, and nobody knows how to make another.
        """
        if self.origin is None:
            raise InputError(
                f"a {type(self.network).__name__} that came as an object cannot be built again from a file; "
                "name its builder, or torchvision's model"
            )
        return {"kind": "foreign", **self.origin}


def tapped(network: nn.Module, points: TapPoints, call: Callable[[], Tensor]) -> Taps:
    """What chosen modules of a network show in one forward pass.

    Args:
        network: That is watched.
        points: Its stages and classifier.
        call: Runs it and returns logits ``(B, K)``.

    Raises:
        InputError: A tapped module was not called: the network takes another way than in the dry run.
    """
    activations = [p.activation for p in points.stages if p.activation is not None]
    heads = [points.head] if points.head is not None else []
    grids = [p.grid for p in points.stages if p.grid is not None]
    watch = Watch(network, [p.call for p in points.stages] + grids, activations + heads)
    with watch.running():
        logits = call()
    if watch.missing():
        raise InputError(
            f"tapped modules were not called: {', '.join(watch.missing())}; name taps that every forward pass calls"
        )
    stages, before = [], []
    for point in points.stages:
        stage = watch.outputs[point.call]
        pre_activation = watch.inputs[point.activation] if point.activation is not None else stage
        grid = None if point.grid is None else grid_of(watch.outputs[point.grid])
        stages.append(_tap_at(point, stage, grid))
        before.append(_tap_at(point, pre_activation, grid))
    if points.head is not None:
        pooled = watch.inputs[points.head]
    else:
        last = stages[-1].tensor
        pooled = spatial_mean(last) if last.ndim == 4 else last.mean(1)
    return Taps(logits, tuple(stages), tuple(before), pooled)


def refuse_unknown_grids(images: Tensor, stages: Sequence[tuple[str, object]]) -> None:
    """Turn away tokens of images that are no squares where nothing says on which grid they lie.

    Args:
        images: ``(B, C, H, W)``, as the network is given them.
        stages: Layout of each, and what says its grid; None for nothing.

    Raises:
        InputError: There are such.
    """
    height, width = images.shape[2:]
    if height != width and ("tokens", None) in stages:
        raise InputError(
            f"where tokens lie on images of {width}x{height} pixels is not known: no convolution says their grid; give "
            "the network a resolution, to which it has images resized, or name taps that are maps (B, C, H, W)"
        )


def _tap_at(point: TapPoint, tensor: Tensor, grid: tuple[int, int] | None) -> Tap:
    first = tensor.permute(0, 3, 1, 2) if point.channels_last else tensor
    return tap_of(first, point.layout, point.position, grid)


def grid_of(made: Tensor) -> tuple[int, int]:
    """Height and width of a map ``(B, C, H, W)``."""
    return made.shape[2], made.shape[3]


def tap_of(tensor: Tensor, layout: str, position: float, grid: tuple[int, int] | None = None) -> Tap:
    """A stage: a map, or tokens without those before the image's, which have no place on the grid.

    These are a class token, one of a distillation (DeiT) and registers (DINOv2).

    Args:
        tensor: ``(B, C, H, W)`` or ``(B, N, D)``.
        layout: ``map`` or ``tokens``.
        position: Relative depth in (0, 1].
        grid: Of the image's tokens; None where it is not known, and taken for a square.

    Raises:
        InputError: Tokens are fewer than the grid has places, or may be a square or something else.
    """
    if layout == "map":
        return Tap(tensor, "map", position)
    n = tensor.shape[1]
    side = math.isqrt(n)
    before = n - (side * side if grid is None else math.prod(grid))
    # Without a grid: more than one only where the tokens are no rectangle as they are.
    square = before <= 1 or (n % side != 0 and before <= MOST_TOKENS_BEFORE)
    if before < 0 or (grid is None and not square):
        raise InputError(
            f"where {n} tokens lie on the image is not known: no convolution says their grid, and they are no "
            f"square after up to {MOST_TOKENS_BEFORE} others; name taps that are maps (B, C, H, W)"
        )
    return Tap(tensor[:, before:], "tokens", position, grid)
