"""The integer network that a network of rounded weights leaves as, for its export.

A layer's integers and scales are those of its rounded weights, with BatchNorm folded in: a gain multiplies the scale of
its channel, a negative one turns the signs of its integers. So both networks are the same function, but for sums in
another order. See :mod:`naskd.nn.quantized`.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from naskd.nn.quantized import (
    QuantizedNorm,
    QuantizedWeights,
    Quantizer,
    quantized_layers,
    weight_integers,
)
from naskd.spec.errors import InputError

_OPSET = 21
"""From which on ONNX has integers of 4 bits."""


class FixedQuantizer(nn.Module):
    """A pair of ``QuantizeLinear`` and ``DequantizeLinear`` in the exported graph; to uint8, and back."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.register_buffer("scale", quantizer.scale.clone())
        self.register_buffer("zero_point", quantizer.zero_point.to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """See the class; a stand-in for the export, whose values mean nothing."""
        codes = _symbol("QuantizeLinear", (x, self.scale, self.zero_point), torch.uint8, x)
        return _symbol("DequantizeLinear", (codes, self.scale, self.zero_point), torch.float32, x)


class IntegerLayer(nn.Module):
    """A convolution or matrix product of integer weights and a bias in floating point.

    Args:
        layer: Of rounded weights, in evaluation mode.
    """

    integers: Tensor
    scale: Tensor
    bias: Tensor
    zero_point: Tensor

    def __init__(self, layer: QuantizedWeights) -> None:
        super().__init__()
        integers, scale, bias = folded(layer)
        self.register_buffer("integers", integers)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        # ONNX may do without, but then ONNX Runtime has no integer kernel for a matrix product.
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int8))
        self.read = nn.Identity() if layer.input_quantizer is None else FixedQuantizer(layer.input_quantizer)
        self.give = (
            nn.Identity() if layer.output_quantizer is None else FixedQuantizer(layer.output_quantizer)
        )
        self.convolution: tuple[object, ...] = ()
        if isinstance(layer, nn.Conv2d):
            self.convolution = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer's."""
        weight = _symbol(
            "DequantizeLinear",
            (self.integers, self.scale, self.zero_point),
            torch.float32,
            self.integers,
            axis=0,
        )
        x = self.read(x)
        if self.convolution:
            given: Tensor = functional.conv2d(x, weight, self.bias, *self.convolution)  # type: ignore[call-overload]  # a tuple of its last arguments
        else:
            given = functional.linear(x, weight, self.bias)
        handed_on: Tensor = self.give(given)
        return handed_on


def _symbol(
    operator: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, like: Tensor, **attrs: int
) -> Tensor:
    # torch's own operators for the two move to another package; these are ONNX's.
    found: Tensor = torch.onnx.ops.symbolic(
        operator, inputs, dict(attrs), dtype=dtype, shape=like.shape, version=_OPSET
    )
    return found


@torch.no_grad()
def folded(layer: QuantizedWeights) -> tuple[Tensor, Tensor, Tensor]:
    """Integers ``(out, ...)`` int8, the scale of each output channel and its bias, ``(out,)`` float32.

    The scale of a channel whose BatchNorm multiplies it by 0 is 0.

    Args:
        layer: Of rounded weights, with BatchNorm's running statistics.
    """
    integers, scale = weight_integers(layer.weight, layer.bits)
    bias = torch.zeros_like(scale) if layer.bias is None else layer.bias.clone()
    if layer.norm:
        (norm,) = layer.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        bias = norm.bias + (bias - norm.running_mean) * gain
        signs = gain.sign().to(torch.int8).reshape(-1, *(1 for _ in integers.shape[1:]))
        integers, scale = integers * signs, scale * gain.abs()
    return integers, scale, bias


def integer_network(network: nn.Module) -> nn.Module:
    """A copy with integer weights, for the export; it computes nothing by itself.

    Args:
        network: Of rounded weights, trained, in evaluation mode, on the CPU.

    Raises:
        InputError: It was not trained: the range of an activation is not known.
    """
    made = copy.deepcopy(network)
    if any(isinstance(part, Quantizer) and not part.seen > 0 for part in made.modules()):
        raise InputError("this network was not trained, so that the ranges of its activations are not known")
    replaced: dict[str, nn.Module] = {name: IntegerLayer(layer) for name, layer in quantized_layers(made)}
    for name, part in made.named_modules():
        if isinstance(part, QuantizedNorm):
            replaced[name] = (
                nn.Identity() if part.output_quantizer is None else FixedQuantizer(part.output_quantizer)
            )
        elif isinstance(part, Quantizer) and not _within(name, replaced):
            replaced[name] = FixedQuantizer(part)
    for name, part in replaced.items():
        made.set_submodule(name, part)
    return made


def _within(name: str, replaced: dict[str, nn.Module]) -> bool:
    return any(name.startswith(f"{other}.") for other in replaced)


def weights_of_4_bits(network: nn.Module) -> set[str]:
    """Names of the integers of an :func:`integer_network` that have 4 bits, as its layers say before it is made one."""
    return {f"{name}.integers" for name, layer in quantized_layers(network) if layer.bits == 4}
