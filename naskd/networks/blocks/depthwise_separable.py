"""Depthwise separable convolution.

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam: MobileNets: Efficient Convolutional Neural
Networks for Mobile Vision Applications. 2017, arXiv 1704.04861, fig. 3 right.
"""

from torch import Tensor, nn

from naskd.networks.block import Block
from naskd.networks.inheriting import filter_norms, take_sequence
from naskd.networks.layers import activation, conv_norm, conv_norm_cost, strided, total
from naskd.spec.design import Cost, StageSpec


class DepthwiseSeparable(Block):
    """Depthwise ``kernel x kernel`` with the stride, ReLU, then 1x1 to ``width``, ReLU; no shortcut.

    Ignores ``expansion`` and ``squeeze_excitation``.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        self.branch = nn.Sequential(
            *conv_norm(in_channels, in_channels, stage.kernel, stride, groups=in_channels),
            activation(stage.activation, "relu"),
            *conv_norm(in_channels, stage.width, 1),
        )
        self.activation = activation(stage.activation, "relu")

    def pre_activation(self, x: Tensor) -> Tensor:
        """Output of the last BatchNorm."""
        output: Tensor = self.branch(x)
        return output

    def importance(self) -> Tensor:
        """Of the branch."""
        return filter_norms(self.branch)

    def take_weights(self, other: Block, inputs: Tensor, outputs: Tensor) -> None:
        """Of the branch."""
        assert isinstance(other, DepthwiseSeparable)
        take_sequence(self.branch, other.branch, inputs, outputs)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The pointwise convolution's."""
        norm = self.branch[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        size = strided(height, stride), strided(width, stride)
        return total(
            (
                conv_norm_cost(in_channels, in_channels, stage.kernel, *size, groups=in_channels),
                conv_norm_cost(in_channels, stage.width, 1, *size),
            )
        )
