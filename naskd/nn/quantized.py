"""Layers that compute with rounded numbers while they train, so that they can leave as integers.

Quantization-aware training: Jacob et al.: Quantization and training of neural networks for efficient
integer-arithmetic-only inference. CVPR 2018, arXiv 1712.05877, section 3. Krishnamoorthi: Quantizing deep convolutional
networks for efficient inference. 2018, arXiv 1806.08342. Nagel et al.: A white paper on neural network quantization.
2021, arXiv 2106.08295. Gradients go straight through the rounding, and are 0 where a value is clipped.

Weights have one scale for each output channel and no zero point. BatchNorm multiplies an output channel by a number, so
folded into the weights it changes scales and leaves the integers as they are. Hence the network that is trained is the
one that leaves.

Differs: Jacob et al. fold BatchNorm before they round, with statistics of the batch in training and others in
evaluation, and have one scale a layer. They leave activations unrounded for the first 50,000 to 2 million steps, and
average their ranges over thousands. Trainings here are shorter: ranges follow at the pace of BatchNorm's statistics.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from naskd.nn.norm import Norm
from naskd.nn.pointwise import PointwiseConv
from naskd.nn.subsampled import Subsampled
from naskd.spec.design import INTEGER_BITS

MOMENTUM = 0.1
"""Share of the newest batch in the range of an activation, as of BatchNorm's in its statistics."""
LEVELS = 2**INTEGER_BITS - 1
"""Steps between the smallest and the largest activation."""

_LEAST = 1e-30
"""A scale is at least this, so that it can be divided by: of a filter of zeros, or a map of zeros."""


class Quantizer(nn.Module):
    """A map, of any shape, rounded to 256 values between the smallest and the largest; 0 is one of them.

    The range is an average over the batches of a training, and fixed in evaluation mode. Before the first batch of a
    training nothing is known of it, and an evaluation passes on what it is given.

    Args:
        device: Of the map.
    """

    bounds: Tensor
    seen: Tensor
    observes: bool = True
    """Whether what it is given in training counts for the range; False where a batch is shown once more."""

    def __init__(self, device: torch.device | None = None) -> None:
        super().__init__()
        self.register_buffer("bounds", torch.zeros(2, device=device))
        # Of all weights of an average that begins at 0, as of Adam's: so the first batch counts in full.
        self.register_buffer("seen", torch.zeros((), device=device))

    @property
    def scale(self) -> Tensor:
        """Of a step, a positive scalar."""
        scale: Tensor = ((self.bounds[1] - self.bounds[0]) / LEVELS).clamp_min(_LEAST)
        return scale

    @property
    def zero_point(self) -> Tensor:
        """Which of the values 0 to 255 stands for 0, an int32 scalar."""
        return (-self.bounds[0] / self.scale).round().to(torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape and type."""
        if x.is_meta:  # torch has no such operator there
            return x
        learns = self.training and self.observes
        if learns:
            self._observe(x)
        rounded = torch.fake_quantize_per_tensor_affine(x.float(), self.scale, self.zero_point, 0, LEVELS)
        rounded = rounded.to(x.dtype)
        return rounded if learns else torch.where(self.seen > 0, rounded, x)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        low, high = x.detach().aminmax()
        now = torch.stack([low.float().clamp_max(0), high.float().clamp_min(0)])
        self.seen.lerp_(torch.ones_like(self.seen), MOMENTUM)
        self.bounds.lerp_(now, MOMENTUM / self.seen)


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """Of a step of each output channel, so that its largest weight is the largest integer; ``(out,)``, positive.

    Args:
        weight: ``(out, ...)``.
        bits: 8 for integers from -127 to 127, 4 for -7 to 7.
    """
    largest = weight.detach().abs().amax(tuple(range(1, weight.ndim)))
    return (largest / _most(bits)).clamp_min(_LEAST)


def rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """A weight as the integers that it leaves as say it; of its shape. For the rest see :func:`weight_scale`."""
    if weight.is_meta:
        return weight
    scale, most = weight_scale(weight, bits), _most(bits)
    # In floating point: of whole numbers torch looks at their range, for which a GPU would be waited for.
    zero = torch.zeros_like(scale)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -most, most)


def weight_integers(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """What :func:`rounded_weight` is the product of: integers as int8, same shape, and their scale, ``(out,)``."""
    scale = weight_scale(weight, bits)
    wide = scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    return (rounded_weight(weight, bits) / wide).round().to(torch.int8), scale


def integer_bytes(weight: Tensor, bits: int) -> int:
    """Of an integer layer: its weights, and for each output channel a scale and a bias of 32 bits, of 0 or not."""
    return -(-weight.numel() * bits // 8) + len(weight) * (4 + 4)


def _most(bits: int) -> int:
    return int(2 ** (bits - 1)) - 1


class QuantizedWeights(nn.Module):
    """What the layers below have in common; their weights have :attr:`bits` bits.

    What such a layer reads is rounded already, but where it has an `input_quantizer`. What it gives is rounded later,
    by what follows it, but where it has an `output_quantizer`.
    """

    float_type: ClassVar[type[nn.Module]]
    weight: Tensor
    bias: Any
    bits: int
    input_quantizer: Quantizer | None
    output_quantizer: Quantizer | None
    norm: "tuple[QuantizedNorm, ...]" = ()
    """The BatchNorm that is folded into it, if there is one; in a tuple, so that torch sees no part of this layer."""

    def take(self, layer: nn.Module, bits: int) -> None:
        """Have the parameters of a layer, which is of :attr:`float_type`."""
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        self.weight, self.bias, self.bits = layer.weight, layer.bias, bits
        self.register_module("input_quantizer", None)
        self.register_module("output_quantizer", None)
        self.train(layer.training)

    @property
    def size_bytes(self) -> int:
        """Of the integer layer."""
        return integer_bytes(self.weight, self.bits)

    def read(self, x: Tensor) -> Tensor:
        """What the layer is given, rounded."""
        return x if self.input_quantizer is None else self.input_quantizer(x)

    def give(self, y: Tensor) -> Tensor:
        """What it gives, rounded or not."""
        return y if self.output_quantizer is None else self.output_quantizer(y)


class _Convolving(QuantizedWeights):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolved: Tensor = super()._conv_forward(  # type: ignore[misc]  # a convolution comes after this class
            self.read(x), rounded_weight(weight, self.bits), bias
        )
        return self.give(convolved)


class QuantizedConv(_Convolving, Subsampled):
    """An ``nn.Conv2d`` of rounded weights."""

    float_type = nn.Conv2d


class QuantizedPointwiseConv(_Convolving, PointwiseConv):
    """A :class:`~naskd.nn.pointwise.PointwiseConv` of rounded weights."""

    float_type = PointwiseConv


class QuantizedLinear(QuantizedWeights, nn.Linear):
    """An ``nn.Linear`` of rounded weights."""

    float_type = nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        return self.give(
            nn.functional.linear(self.read(x), rounded_weight(self.weight, self.bits), self.bias)
        )


class QuantizedNorm(Norm):
    """A BatchNorm that leaves as a part of the convolution before it.

    Args:
        norm: Whose parameters and statistics it has.
        convolution: Which it follows.
    """

    float_type = Norm
    output_quantizer: Quantizer | None

    def __init__(self, norm: nn.BatchNorm2d, convolution: QuantizedWeights) -> None:
        with torch.device("meta"):
            super().__init__(
                norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
            )
        for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
            setattr(self, name, tensor)
        self.register_module("output_quantizer", None)
        self.train(norm.training)
        convolution.norm = (self,)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        normalised = super().forward(x)
        return normalised if self.output_quantizer is None else self.output_quantizer(normalised)


class Rounded(nn.Sequential):
    """A layer without weights, an activation for instance, and the rounding of what it gives."""

    def __init__(self, layer: nn.Module, device: torch.device | None = None) -> None:
        super().__init__(layer, Quantizer(device))
        self.train(layer.training)


def quantized_weights(layer: nn.Module, bits: int) -> QuantizedWeights:
    """A layer of rounded weights in place of a convolution or matrix product; it has the same parameters.

    Args:
        layer: See :func:`has_quantized_form`.
        bits: Of its weights.
    """
    made: QuantizedWeights
    with torch.device("meta"):  # the weights are those of the layer: none are drawn
        if isinstance(layer, nn.Conv2d):
            make = QuantizedPointwiseConv if isinstance(layer, PointwiseConv) else QuantizedConv
            made = _like_conv(make, layer)
        else:
            assert isinstance(layer, nn.Linear)
            made = QuantizedLinear(layer.in_features, layer.out_features, layer.bias is not None)
    made.take(layer, bits)
    return made


def _like_conv(make: Any, layer: nn.Conv2d) -> QuantizedWeights:
    if make is QuantizedPointwiseConv:
        found: QuantizedWeights = make(
            layer.in_channels, layer.out_channels, layer.stride[0], bias=layer.bias is not None
        )
        return found
    found = make(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
    )
    return found


_WEIGHTED: tuple[type[nn.Module], ...] = (nn.Conv2d, Subsampled, PointwiseConv, nn.Linear)
_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm2d, Norm)


def has_quantized_form(layer: nn.Module) -> bool:
    """Whether it is a convolution or matrix product that :func:`quantized_weights` knows, and no subclass of one."""
    return type(layer) in _WEIGHTED


def is_foldable(layer: nn.Module) -> bool:
    """Whether it is a BatchNorm that can be a part of a convolution before it."""
    return (
        isinstance(layer, nn.BatchNorm2d)
        and type(layer) in _NORMS
        and layer.affine
        and layer.track_running_stats
    )


def quantized_layers(network: nn.Module) -> Iterator[tuple[str, QuantizedWeights]]:
    """Layers of rounded weights in a network, by name."""
    for name, layer in network.named_modules():
        if isinstance(layer, QuantizedWeights):
            yield name, layer


def is_quantized(network: nn.Module) -> bool:
    """Whether a network has layers of rounded weights."""
    return any(True for _ in quantized_layers(network))


def float_type(layer: nn.Module) -> type[nn.Module]:
    """The type of layer that a layer stands for: its own, where nothing of it is rounded."""
    if isinstance(layer, Rounded):
        return type(layer[0])
    found: type[nn.Module] = getattr(layer, "float_type", type(layer))
    return found
