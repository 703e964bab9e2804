"""Inverted residual whose expansion and depthwise convolution are one standard convolution.

Gupta, Akin: Accelerator-aware Neural Network Design using AutoML. 2020, arXiv 2003.02838, section 3.1 (there: fused
inverted bottleneck); Tan, Le: EfficientNetV2: Smaller Models and Faster Training. ICML 2021, arXiv 2104.00298, fig. 2
right (there: Fused-MBConv).
Differs: squeeze-excitation has the reduction of :class:`~naskd.networks.layers.SqueezeExcitation`, a quarter of the
hidden width; theirs is a quarter of the input's.
"""

from torch import Tensor

from naskd.networks.block import Block
from naskd.networks.inheriting import filter_norms, take_sequence
from naskd.networks.layers import (
    SqueezeExcitation,
    activation,
    conv_norm,
    conv_norm_cost,
    scaled_width,
    strided,
    total,
)
from naskd.networks.linear_bottleneck import LinearBottleneck
from naskd.spec.design import Cost, StageSpec


class FusedInvertedResidual(LinearBottleneck):
    """``kernel x kernel`` expansion with the stride, then a 1x1 projection without an activation.

    The hidden width is ``expansion * in_channels`` (the papers' is 4 to 8), rounded to the nearest integer and at least
    1. Where it equals ``in_channels``, one ``kernel x kernel`` convolution with an activation does both, as in the
    authors' code. The input is added where stride and channels allow it.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        hidden = scaled_width(stage.expansion, in_channels)
        self.expands = hidden != in_channels
        first = hidden if self.expands else stage.width
        layers = [*conv_norm(in_channels, first, stage.kernel, stride), activation(stage.activation, "silu")]
        if stage.squeeze_excitation:
            layers.append(SqueezeExcitation(first))
        if self.expands:
            layers += conv_norm(hidden, stage.width, 1)
        self.ends_linearly(layers, stride == 1 and in_channels == stage.width)

    def importance(self) -> Tensor:
        """Of the branch."""
        return filter_norms(self.branch)

    def take_weights(self, other: Block, inputs: Tensor, outputs: Tensor) -> None:
        """Of the branch."""
        assert isinstance(other, FusedInvertedResidual)
        take_sequence(self.branch, other.branch, inputs, outputs)

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        hidden = scaled_width(stage.expansion, in_channels)
        expands = hidden != in_channels
        first = hidden if expands else stage.width
        size = strided(height, stride), strided(width, stride)
        parts = [conv_norm_cost(in_channels, first, stage.kernel, *size)]
        if stage.squeeze_excitation:
            parts.append(SqueezeExcitation.cost(first))
        if expands:
            parts.append(conv_norm_cost(hidden, stage.width, 1, *size))
        return total(parts)
