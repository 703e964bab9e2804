"""A network begins with the weights of a wider and deeper one: filters are selected, and with them what reads them.

Li, Kadav, Durdanovic, Samet, Graf: Pruning filters for efficient ConvNets. ICLR 2017, arXiv 1608.08710: filters of the
largest L1 norms are kept, with the input channels of the next layer that belong to them.
Differs: channels that residual sums tie together are ranked by the sum of the norms of all filters that make them; the
paper lets the shortcut decide. Of several blocks in a stage the first ones are kept. Where a student's shortcut is the
identity and the teacher's a projection, the projection is dropped: the student passes its channels on as they are.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from naskd.networks.block import Block
from naskd.networks.layers import SqueezeExcitation
from naskd.nn.quantized import float_type
from naskd.spec.errors import InputError

if TYPE_CHECKING:
    from naskd.networks.cnn import ConvStudent


def filter_norms(layers: nn.Module) -> Tensor:
    """L1 norms of the filters of the last convolution in `layers`, ``(out_channels,)``."""
    last = [module for module in layers.modules() if isinstance(module, nn.Conv2d)][-1]
    return last.weight.detach().abs().flatten(1).sum(1)


def strongest(norms: Tensor, kept: int) -> Tensor:
    """Positions of the `kept` largest of `norms`, ascending.

    Raises:
        InputError: There are fewer.
    """
    if kept > len(norms):
        raise InputError(f"{kept} channels cannot be taken of {len(norms)}")
    return norms.topk(kept).indices.sort().values


@torch.no_grad()
def take_network(student: "ConvStudent", teacher: "ConvStudent") -> None:
    """Normalisation of the images, stem, stages and classifier.

    A stage of other blocks than the teacher's is left as it is. What reads it gets the weights with which the teacher
    reads its own.

    Args:
        student: Changed in place.
        teacher: Of the same images and classes; as wide and as deep, or more.

    Raises:
        InputError: The layers do not match.
    """
    if student.mean.shape != teacher.mean.shape or student.n_classes != teacher.n_classes:
        sizes = [f"{one.mean.numel()} colours and {one.n_classes} classes" for one in (student, teacher)]
        raise InputError(f"the student has {sizes[0]}, its teacher {sizes[1]}: it cannot start from it")
    student.mean.copy_(teacher.mean)
    student.std.copy_(teacher.std)
    stem, outputs = _importance(teacher)
    channels = strongest(stem, _filters(student.stem))
    colours = torch.arange(student.mean.numel(), device=stem.device)
    # Without max-pooling, which one of the two may have alone.
    take_sequence(student.stem[:3], teacher.stem[:3], colours, channels)
    for number, norms in enumerate(outputs):
        mine, theirs = student.spec.stages[number], teacher.spec.stages[number]
        kept = strongest(norms, mine.width)
        if mine.block == theirs.block:
            blocks = zip(_blocks(student.stages[number]), _blocks(teacher.stages[number]), strict=False)
            for block, other in blocks:
                block.take_weights(other, channels, kept)
                channels = kept
        channels = kept
    assert isinstance(student.head, nn.Linear)
    assert isinstance(teacher.head, nn.Linear)
    _take_linear(student.head, teacher.head, channels, torch.arange(teacher.head.out_features))


def _importance(network: "ConvStudent") -> tuple[Tensor, list[Tensor]]:
    """Of the stem's output channels, and of each stage's; where a stage passes on what it is given, they are tied."""
    found = [filter_norms(network.stem)]
    tied = []
    for stage in network.stages:
        blocks = _blocks(stage)
        found.append(torch.stack([block.importance() for block in blocks]).sum(0))
        tied.append(blocks[0].passes_on())
    for number in range(1, len(found)):  # what flows into a sum counts in it ...
        if tied[number - 1]:
            found[number] = found[number] + found[number - 1]
    for number in reversed(range(1, len(found))):  # ... and is kept with it
        if tied[number - 1]:
            found[number - 1] = found[number]
    return found[0], found[1:]


def _blocks(stage: nn.Module) -> list[Block]:
    return [block for block in stage.children() if isinstance(block, Block)]


def _filters(layers: nn.Module) -> int:
    return len(filter_norms(layers))


@torch.no_grad()
def take_sequence(layers: nn.Module, others: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Convolutions, BatchNorms and squeeze-excitations that follow each other.

    Args:
        layers: An ``nn.Sequential``, changed in place.
        others: The same with as many channels or more.
        inputs: Which of the others' input channels are kept, one for each of `layers`.
        outputs: Which output channels of the last convolution are kept; of those between, the strongest are.

    Raises:
        InputError: They are not the same layers.
    """
    mine, theirs = list(layers.children()), list(others.children())
    if [float_type(layer) for layer in mine] != [float_type(layer) for layer in theirs]:
        raise InputError(
            f"the student has the layers {_named(mine)} where the teacher has {_named(theirs)}: it cannot start from it"
        )
    last = max(number for number, layer in enumerate(mine) if isinstance(layer, nn.Conv2d))
    for number, (layer, other) in enumerate(zip(mine, theirs, strict=True)):
        if isinstance(layer, nn.Conv2d):
            assert isinstance(other, nn.Conv2d)
            kept = outputs
            if number != last:
                kept = inputs if _depthwise(other) else strongest(filter_norms(other), layer.out_channels)
            _take_convolution(layer, other, inputs, kept)
            inputs = kept
        elif isinstance(layer, nn.BatchNorm2d):
            assert isinstance(other, nn.BatchNorm2d)
            take_norm(layer, other, inputs)
        elif isinstance(layer, SqueezeExcitation):
            assert isinstance(other, SqueezeExcitation)
            between = strongest(other.reduce.weight.abs().sum(1), layer.reduce.out_features)
            _take_linear(layer.reduce, other.reduce, inputs, between)
            _take_linear(layer.expand, other.expand, between, inputs)


@torch.no_grad()
def take_shortcut(shortcut: nn.Module, other: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
    """Of a residual block: a projection where the other passes on its input becomes one that passes it on.

    An identity stays one, whatever the other is: of the other's projection nothing is left, and the block begins as
    another function than a slice of the other's.

    Args:
        shortcut: Identity or convolution and BatchNorm, changed in place.
        other: The same of the other block, in any of the two forms.
        inputs: Which of the other's input channels are kept.
        outputs: Which of its output channels are.
    """
    if isinstance(shortcut, nn.Identity):
        return
    if not isinstance(other, nn.Identity):
        take_sequence(shortcut, other, inputs, outputs)
        return
    convolution, norm = shortcut.children()
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    convolution.weight.copy_((outputs[:, None] == inputs[None, :]).float()[:, :, None, None])
    norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr]  # torch's may be None


def take_norm(norm: nn.BatchNorm2d, other: nn.BatchNorm2d, kept: Tensor) -> None:
    """Gain, shift and running statistics of the channels that are kept."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).data.copy_(getattr(other, name).data[kept])


def _take_convolution(layer: nn.Conv2d, other: nn.Conv2d, inputs: Tensor, outputs: Tensor) -> None:
    read = torch.zeros_like(inputs[:1]) if _depthwise(other) else inputs
    layer.weight.copy_(other.weight[outputs][:, read])


def _take_linear(layer: nn.Linear, other: nn.Linear, inputs: Tensor, outputs: Tensor) -> None:
    layer.weight.copy_(other.weight[outputs][:, inputs])
    layer.bias.copy_(other.bias[outputs])


def _depthwise(layer: nn.Conv2d) -> bool:
    return layer.groups == layer.in_channels and layer.groups > 1


def _named(layers: Iterable[nn.Module]) -> str:
    return ", ".join(type(layer).__name__ for layer in layers)
