"""A ResNet of torchvision, timm or a user as a network of naskd, so that students can begin with its weights.

Its layers are found by torchvision's names, which timm shares: ``conv1``, ``bn1``, ``layer<i>.<j>.conv<k>``, ``bn<k>``
and ``downsample``. That the same layers compute the same is tried, with drawn weights, and not believed.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from naskd.networks.foreign import ForeignNetwork
from naskd.networks.student import Student, build_student
from naskd.spec.design import ArchitectureSpec, StageSpec, first_line
from naskd.spec.errors import USERS, InputError, one_line

_SIDE = 33
"""Of the images on which two networks are compared; odd, so that every stride shows how it pads."""

_TOLERANCE = 1e-9
"""Largest difference of a logit in 64 bits, relative to the largest logit."""

_SETTINGS: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
    ),
    nn.BatchNorm2d: ("num_features", "eps", "affine", "track_running_stats"),
    nn.Linear: ("in_features", "out_features"),
}
"""What must be equal of two layers beside their weights."""

Layer = TypeVar("Layer", bound=nn.Module)
Layers = Mapping[str, nn.Module]


def as_student(network: nn.Module) -> Student:
    """A network as one of naskd: itself, or of a foreign ResNet a copy on the CPU, in evaluation mode.

    The copy sees images at the size that they have, also where the foreign network has them resized.

    Args:
        network: As a teacher holds it; it is not changed.

    Raises:
        InputError: It is neither; the message says what is other than in a ResNet.
    """
    if isinstance(network, Student):
        return network
    if not isinstance(network, ForeignNetwork):
        raise InputError(f"a {type(network).__name__} is neither a network of naskd's nor a ResNet")
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        _check_function(network)
        return _copied(network)


def stage_taps(network: nn.Module) -> tuple[int, ...]:
    """Which of a network's taps are the stages of :func:`as_student`, shallow to deep.

    Args:
        network: That can be read so.

    Raises:
        InputError: It does not show all of them.
    """
    if isinstance(network, Student):
        return tuple(range(len(network.spec.stages)))
    assert isinstance(network, ForeignNetwork)
    names = [point.call[0] for point in network.points.stages]
    children = network.network.named_children()
    wanted = [name for name, child in children if name.startswith("layer") and type(child) is not nn.Identity]
    if missing := [name for name in wanted if name not in names]:
        raise InputError(
            f"the teacher does not show its {' and '.join(map(repr, missing))}; name all in its taps: "
            f"{', '.join(wanted)}"
        )
    return tuple(names.index(name) for name in wanted)


def _check_function(network: ForeignNetwork) -> None:
    """That a ResNet of the same layers computes the same, whatever the weights."""
    if apart := difference(network, _copied):
        raise InputError(
            f"it has the layers of a ResNet and computes something else with them: its logits are {apart:.2g} of the "
            "largest one away"
        )


@torch.no_grad()
def difference(
    network: ForeignNetwork, copied: Callable[[ForeignNetwork], Student], side: int = _SIDE
) -> float:
    """How far a copy's logits are from a foreign network's, with drawn weights and in 64 bits.

    Args:
        network: It is not changed.
        copied: Makes the copy.
        side: Of the images.

    Returns:
        The largest difference relative to the largest logit; 0 where it is none but rounding.

    Raises:
        InputError: The network fails on such images.
    """
    drawn = copy.deepcopy(network).to("cpu", torch.float64).eval()
    drawn.preprocessing.resolution = None
    generator = torch.Generator().manual_seed(0)
    for name, value in drawn.state_dict().items():
        if value.is_floating_point():
            _draw(name, value, generator)
    student = copied(drawn)
    images = torch.rand(2, network.in_channels, side, side, generator=generator, dtype=torch.float64)
    try:
        wanted = drawn(images)
    except USERS as error:  # a user's network may raise anything
        raise InputError(f"it fails on images {tuple(images.shape)}: {one_line(error)}") from error
    apart = float((student(images) - wanted).abs().max() / wanted.abs().max())
    return 0.0 if apart <= _TOLERANCE else apart


def _draw(name: str, value: Tensor, generator: torch.Generator) -> None:
    if value.ndim > 1:
        value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    elif name.endswith((".weight", "running_var")):  # gains may be 0 at the beginning, and hide a branch
        value.uniform_(0.5, 1.5, generator=generator)
    else:
        value.normal_(0, 0.3, generator=generator)


@torch.no_grad()
def _copied(network: ForeignNetwork) -> Student:
    layers = {
        name: layer for name, layer in network.network.named_modules() if type(layer) is not nn.Identity
    }
    head, seen = network.head, network.preprocessing
    if head is None or network.points.head is None:
        raise InputError(_other("it does not end in a linear classifier"))
    stem = _layer(layers, "conv1", nn.Conv2d)
    channels = stem.in_channels
    if channels != network.in_channels:
        raise InputError(
            f"it takes images of {channels} channels, and students see {network.in_channels}: they cannot begin with "
            f"its first layer; set channels = {channels} in [data]"
        )
    spec = _architecture(layers)
    mean, std = (values.flatten().expand(channels).tolist() for values in (seen.mean, seen.std))
    student = build_student(spec, channels, network.n_classes, mean, std).to(stem.weight.dtype).eval()
    pairs = _pairs(student, spec)
    known = {*pairs, network.points.head[0]}
    for name, layer in layers.items():
        if name not in known and [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]:
            raise InputError(_other(f"it has a layer {name!r}, {type(layer).__name__}"))
    for name, own in pairs.items():
        kind = nn.Conv2d if isinstance(own, nn.Conv2d) else nn.BatchNorm2d
        _copy(own, _layer(layers, name, kind), name)
    _copy(student.head, head, network.points.head[0])
    return student


def _architecture(layers: Layers) -> ArchitectureSpec:
    """As the shapes of convolutions say; settings are compared afterwards, layer by layer."""
    stem = _layer(layers, "conv1", nn.Conv2d)
    numbers = [name for name in layers if name.startswith("layer") and "." not in name]
    settings: dict[str, Any] = {
        "stem_width": stem.out_channels,
        "stem_kernel": stem.kernel_size[0],
        "stem_stride": stem.stride[0],
        "stem_pool": isinstance(layers.get("maxpool"), nn.MaxPool2d),
    }
    try:
        return ArchitectureSpec(
            tuple(_stage(layers, f"layer{i}") for i in range(1, 1 + len(numbers))), **settings
        )
    except ValidationError as error:
        raise InputError(_other(first_line(error))) from error


def _stage(layers: Layers, name: str) -> StageSpec:
    one, two = (_layer(layers, f"{name}.0.conv{k}", nn.Conv2d) for k in (1, 2))
    settings: dict[str, Any] = {
        "depth": sum(other.rpartition(".")[0] == name for other in layers),
        "kernel": two.kernel_size[0],
    }
    if f"{name}.0.conv3" not in layers:
        return StageSpec("basic", width=two.out_channels, stride=_stride(one), **settings)
    width = _layer(layers, f"{name}.0.conv3", nn.Conv2d).out_channels
    return StageSpec(
        "bottleneck", width=width, stride=_stride(two), expansion=two.out_channels / width, **settings
    )


def _stride(layer: nn.Conv2d) -> Any:  # the design says which are allowed
    return layer.stride[0]


def _pairs(student: Student, spec: ArchitectureSpec) -> dict[str, nn.Module]:
    """The student's layers by the names of the foreign ones, without the classifier."""
    stem = list(student.get_submodule("stem").children())
    found = {"conv1": stem[0], "bn1": stem[1]}
    for i, stage in enumerate(spec.stages):
        for j in range(stage.depth):
            block, place = student.get_submodule(f"stages.{i}.{j}"), f"layer{i + 1}.{j}"
            branch = block.get_submodule("branch").children()
            weighted = [layer for layer in branch if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
            for k, layer in enumerate(weighted):
                found[f"{place}.{('conv', 'bn')[k % 2]}{k // 2 + 1}"] = layer
            for k, projected in enumerate(block.get_submodule("shortcut").children()):
                found[f"{place}.downsample.{k}"] = projected
    return found


def _layer(layers: Layers, name: str, kind: type[Layer]) -> Layer:
    found = layers.get(name)
    if isinstance(found, kind):
        return found
    there = f"is a {type(found).__name__}" if found is not None else "is missing"
    raise InputError(_other(f"its layer {name!r} {there}, wanted: {kind.__name__}"))


def _copy(own: nn.Module, other: nn.Module, name: str) -> None:
    kind = next(kind for kind in _SETTINGS if isinstance(own, kind))
    for setting in _SETTINGS[kind]:
        mine, theirs = getattr(own, setting), getattr(other, setting)
        if mine != theirs:
            raise InputError(_other(f"{setting} of its layer {name!r} is {theirs}, wanted: {mine}"))
    weights, values = own.state_dict(), other.state_dict()
    if strange := values.keys() - weights.keys():
        raise InputError(_other(f"its layer {name!r} has {', '.join(sorted(strange))}"))
    for key in values.keys() - {"num_batches_tracked"}:
        weights[key].copy_(values[key])


def _other(what: str) -> str:
    return f"it is no ResNet of basic or bottleneck blocks: {what}"
