"""Bottleneck residual block.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, arXiv 1512.03385, fig. 5 right.
Differs: the stride is on the ``kernel x kernel`` convolution, as in torchvision and Goyal et al. (2017, arXiv
1706.02677), not on the first 1x1, which would skip three quarters of its input.
"""

from torch import Tensor, nn

from naskd.networks.block import Block
from naskd.networks.inheriting import filter_norms, take_sequence, take_shortcut
from naskd.networks.layers import (
    activation,
    conv_norm,
    conv_norm_cost,
    projection,
    projection_cost,
    scaled_width,
    strided,
    total,
)
from naskd.spec.design import Cost, StageSpec


class Bottleneck(Block):
    """1x1, ``kernel x kernel`` and 1x1 convolutions beside a shortcut, then ReLU.

    The hidden width is ``expansion * width`` (the paper's is 0.25), rounded to the nearest integer and at
    least 1. Ignores ``squeeze_excitation``.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        hidden = scaled_width(stage.expansion, stage.width)
        self.branch = nn.Sequential(
            *conv_norm(in_channels, hidden, 1),
            activation(stage.activation, "relu"),
            *conv_norm(hidden, hidden, stage.kernel, stride),
            activation(stage.activation, "relu"),
            *conv_norm(hidden, stage.width, 1),
        )
        self.shortcut = projection(in_channels, stage.width, stride)
        self.activation = activation(stage.activation, "relu")

    def pre_activation(self, x: Tensor) -> Tensor:
        """Branch plus shortcut."""
        summed: Tensor = self.branch(x) + self.shortcut(x)
        return summed

    def passes_on(self) -> bool:
        """Where the shortcut is the identity."""
        return isinstance(self.shortcut, nn.Identity)

    def importance(self) -> Tensor:
        """Of branch and shortcut."""
        return filter_norms(self.branch) + (0 if self.passes_on() else filter_norms(self.shortcut))

    def take_weights(self, other: Block, inputs: Tensor, outputs: Tensor) -> None:
        """Of branch and shortcut."""
        assert isinstance(other, Bottleneck)
        take_sequence(self.branch, other.branch, inputs, outputs)
        take_shortcut(self.shortcut, other.shortcut, inputs, outputs)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The branch's."""
        norm = self.branch[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        hidden = scaled_width(stage.expansion, stage.width)
        size = strided(height, stride), strided(width, stride)
        return total(
            (
                conv_norm_cost(in_channels, hidden, 1, height, width),
                conv_norm_cost(hidden, hidden, stage.kernel, *size),
                conv_norm_cost(hidden, stage.width, 1, *size),
                projection_cost(in_channels, stage.width, stride, *size),
            )
        )
