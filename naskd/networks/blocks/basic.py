"""Basic residual block.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, arXiv 1512.03385, fig. 5 left.
Differs: the shortcut is a projection (their option B) wherever the shape changes; their CIFAR networks pad
with zeros (option A).
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
    strided,
    total,
)
from naskd.spec.design import Cost, StageSpec


class Basic(Block):
    """Two ``kernel x kernel`` convolutions beside a shortcut, then ReLU; the first one carries the stride.

    Ignores ``expansion`` and ``squeeze_excitation``.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        width, kernel = stage.width, stage.kernel
        self.branch = nn.Sequential(
            *conv_norm(in_channels, width, kernel, stride),
            activation(stage.activation, "relu"),
            *conv_norm(width, width, kernel),
        )
        self.shortcut = projection(in_channels, width, stride)
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
        assert isinstance(other, Basic)
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
        size = strided(height, stride), strided(width, stride)
        return total(
            (
                conv_norm_cost(in_channels, stage.width, stage.kernel, *size),
                conv_norm_cost(stage.width, stage.width, stage.kernel, *size),
                projection_cost(in_channels, stage.width, stride, *size),
            )
        )
