"""Inverted residual with a linear bottleneck.

Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks. CVPR 2018,
arXiv 1801.04381, table 1 and fig. 4d. Optional squeeze-excitation where MnasNet (arXiv 1807.11626) and
MobileNetV3 (arXiv 1905.02244) have it: after the depthwise convolution.
"""

from torch import Tensor, nn

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


class InvertedResidual(LinearBottleneck):
    """1x1 expansion, depthwise ``kernel x kernel``, 1x1 projection without an activation.

    The hidden width is ``expansion * in_channels`` (the paper's is 6), rounded to the nearest integer and
    at least 1; where it equals ``in_channels`` there is no expansion convolution, as in the paper. The
    input is added where stride and channels allow it. Activations are ReLU6.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        hidden = scaled_width(stage.expansion, in_channels)
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers += [*conv_norm(in_channels, hidden, 1), activation(stage.activation, "relu6")]
        layers += [
            *conv_norm(hidden, hidden, stage.kernel, stride, groups=hidden),
            activation(stage.activation, "relu6"),
        ]
        if stage.squeeze_excitation:
            layers.append(SqueezeExcitation(hidden))
        layers += conv_norm(hidden, stage.width, 1)
        self.ends_linearly(layers, stride == 1 and in_channels == stage.width)

    def importance(self) -> Tensor:
        """Of the branch."""
        return filter_norms(self.branch)

    def take_weights(self, other: Block, inputs: Tensor, outputs: Tensor) -> None:
        """Of the branch."""
        assert isinstance(other, InvertedResidual)
        take_sequence(self.branch, other.branch, inputs, outputs)

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        hidden = scaled_width(stage.expansion, in_channels)
        size = strided(height, stride), strided(width, stride)
        parts = [
            conv_norm_cost(hidden, hidden, stage.kernel, *size, groups=hidden),
            conv_norm_cost(hidden, stage.width, 1, *size),
        ]
        if hidden != in_channels:
            parts.append(conv_norm_cost(in_channels, hidden, 1, height, width))
        if stage.squeeze_excitation:
            parts.append(SqueezeExcitation.cost(hidden))
        return total(parts)
