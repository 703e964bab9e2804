"""From floating point to rounded numbers: the layers of a part of a network are replaced, whoever wrote it.

Which layer follows which is seen by running the part once, on the ``meta`` device. A convolution or matrix product, the
BatchNorm after it and the ReLU after that are one unit: the integer kernels of a deployed network compute all three at
once. So a map is rounded where a unit ends, and where the part itself does, as after a residual sum.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from naskd.nn.cost import count_macs, on_meta
from naskd.nn.merging import merging_parts
from naskd.nn.quantized import (
    QuantizedNorm,
    QuantizedWeights,
    Quantizer,
    Rounded,
    has_quantized_form,
    is_foldable,
    quantized_weights,
)
from naskd.spec.errors import InputError

_CLIPPING = (nn.ReLU, nn.ReLU6)
"""What rounding to a range from 0 does by itself."""
_KNOWN = "Conv2d, Linear, BatchNorm2d, ReLU and ReLU6"


@dataclass(frozen=True)
class _Call:
    """A layer that was run: its name, what it read, what it gave."""

    name: str
    layer: nn.Module
    read: Tensor
    gave: Tensor


@dataclass(frozen=True)
class Plan:
    """Which layers of a part of a network are replaced by which; holds for any part of the same layers and calls.

    Args:
        weighted: Convolutions and matrix products, by name.
        norms: For each BatchNorm the convolution that it is folded into.
        ends: Layers whose outputs are rounded.
        unrounded: Of `weighted`, those that read what is rounded nowhere.
        first: Of `weighted`, those that read what the part is given.
    """

    weighted: tuple[str, ...]
    norms: tuple[tuple[str, str], ...]
    ends: tuple[str, ...]
    unrounded: tuple[str, ...]
    first: tuple[str, ...]

    def apply(self, part: nn.Module, bits: int, *, reads_rounded: bool = True) -> None:
        """Replace the layers, in place; names and shapes of parameters stay.

        Args:
            part: As it was planned for.
            bits: Of the weights, 8 or 4.
            reads_rounded: Whether what the part is given is rounded already.
        """
        made: dict[str, nn.Module] = {
            name: quantized_weights(part.get_submodule(name), bits) for name in self.weighted
        }
        device = next(part.parameters()).device
        for name in (*self.unrounded, *(() if reads_rounded else self.first)):
            made[name].input_quantizer = Quantizer(device)
        for name, before in self.norms:
            norm, convolution = part.get_submodule(name), made[before]
            assert isinstance(norm, nn.BatchNorm2d)
            assert isinstance(convolution, QuantizedWeights)
            made[name] = QuantizedNorm(norm, convolution)
        for name in self.ends:
            if name in made:
                made[name].output_quantizer = Quantizer(device)
            else:
                made[name] = Rounded(part.get_submodule(name), device)
        for name, layer in made.items():
            part.set_submodule(name, layer)


def plan(part: nn.Module, shape: Sequence[int], *, whose: str, activation: str = "") -> Plan:
    """How a part of a network is quantized.

    Args:
        part: Made of ``Conv2d``, ``Linear``, ``BatchNorm2d`` after a convolution, ``ReLU``, ``ReLU6``, and what has no
            weights; calls them as modules. One tensor in, one out. It is not changed.
        shape: Of an input, ``(B, C, H, W)``.
        whose: What the part is, for messages.
        activation: Name of the layer that ends the part, whose output is to be rounded; empty where a unit ends it.

    Raises:
        InputError: It is made of something else.
    """
    _check_layers(part, whose)
    calls, given = _calls(part, shape, whose)
    readers: dict[int, list[_Call]] = defaultdict(list)
    for call in calls:
        readers[id(call.read)].append(call)
    weighted = [call for call in calls if has_quantized_form(call.layer)]
    norms: dict[str, str] = {}
    ends = [_end_of_unit(call, readers, norms, activation) for call in weighted]
    ends += [call.name for call in calls if isinstance(call.layer, _CLIPPING)]
    ends += [activation] if activation else []
    _check_norms(part, norms, whose)
    rounded = {id(given)} | {id(call.gave) for call in calls if call.name in ends}
    return Plan(
        weighted=tuple(dict.fromkeys(call.name for call in weighted)),
        norms=tuple(norms.items()),
        ends=tuple(dict.fromkeys(ends)),
        unrounded=tuple(dict.fromkeys(call.name for call in weighted if id(call.read) not in rounded)),
        first=tuple(dict.fromkeys(call.name for call in weighted if id(call.read) == id(given))),
    )


def _check_layers(part: nn.Module, whose: str) -> None:
    if merging_parts(part):
        raise InputError(
            f"{whose} has no integer form: its branches are merged after the training, and what they are merged to "
            "would have to be rounded once more"
        )
    for name, layer in part.named_modules():
        own = [*layer.parameters(recurse=False)]
        if own and not (has_quantized_form(layer) or is_foldable(layer)):
            where = (
                f"its layer {name!r} is a {type(layer).__name__}" if name else "it has parameters of its own"
            )
            raise InputError(f"{whose} has no integer form: {where}; bits below 32 are for {_KNOWN}")
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            raise InputError(
                f"{whose} has no integer form: its layer {name!r} pads with {layer.padding_mode!r}, not with zeros"
            )


def _calls(part: nn.Module, shape: Sequence[int], whose: str) -> tuple[list[_Call], Tensor]:
    """The layers of a copy as they are run, and what it was given."""
    copy, found = on_meta(part).eval(), list[_Call]()
    given = torch.empty(tuple(shape), device="meta")

    def noted(name: str, layer: nn.Module) -> None:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                found.append(_Call(name, layer, inputs[0], output))

        layer.register_forward_hook(hook)

    for name, layer in copy.named_modules():
        if not any(True for _ in layer.children()):
            noted(name, layer)
    with torch.no_grad():
        total = count_macs(lambda: copy(given))
    weighted = [call for call in found if has_quantized_form(call.layer)]
    for name, layer in copy.named_modules():
        times = sum(call.layer is layer for call in found)
        if has_quantized_form(layer) and not times:
            raise InputError(f"{whose} has no integer form: it does not call its layer {name!r} as a module")
        if (has_quantized_form(layer) or is_foldable(layer)) and times > 1:
            raise InputError(f"{whose} has no integer form: it calls its layer {name!r} more than once")
    for call in weighted:
        if isinstance(call.layer, nn.Linear) and call.read.ndim != 2:
            raise InputError(
                f"{whose} has no integer form: its layer {call.name!r} reads {call.read.ndim} dimensions, not 2; "
                "a convolution of kernel 1 does the same on maps"
            )
    if total != sum(map(_macs, weighted)):
        raise InputError(f"{whose} has no integer form: it multiplies matrices outside of its layers")
    return found, given


def _macs(call: _Call) -> int:
    weight = call.layer.weight
    assert isinstance(weight, Tensor)
    return call.gave.numel() * weight[0].numel()


def _end_of_unit(call: _Call, readers: dict[int, list[_Call]], norms: dict[str, str], activation: str) -> str:
    """Name of the last layer of the unit that a convolution or matrix product begins."""
    end = call
    if (norm := _only(readers[id(end.gave)])) and is_foldable(norm.layer):
        norms[norm.name] = call.name
        end = norm
    following = _only(readers[id(end.gave)])
    if following and (isinstance(following.layer, _CLIPPING) or following.name == activation):
        end = following
    return end.name


def _only(calls: list[_Call]) -> _Call | None:
    return calls[0] if len(calls) == 1 else None


def _check_norms(part: nn.Module, norms: dict[str, str], whose: str) -> None:
    for name, layer in part.named_modules():
        if is_foldable(layer) and name not in norms:
            raise InputError(
                f"{whose} has no integer form: its BatchNorm {name!r} does not follow a convolution, as the only one "
                "that reads it"
            )
