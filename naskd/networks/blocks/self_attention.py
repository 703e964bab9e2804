"""Convolution and self-attention in one block.

Mehta, Rastegari: MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer. ICLR 2022, arXiv
2110.02178, section 3.1 and fig. 1b, with patches of 2x2 pixels.
Differs: one transformer layer a block, as wide as the block, theirs 2 to 4 and wider. The local convolution carries the
stride, and its output is what is concatenated, theirs the input. Grids of an odd side are not resized: each pixel
attends to those of its place in a patch, wherever that is inside the map. Queries, keys and values have no bias.
"""

from torch import Tensor, nn

from naskd.networks.block import Block
from naskd.networks.layers import (
    EPSILON,
    activation,
    conv_norm,
    conv_norm_cost,
    linear_cost,
    norm_cost,
    scaled_width,
    strided,
    total,
)
from naskd.networks.transformer import TransformerLayer, plain_heads
from naskd.nn.layout import concatenated
from naskd.nn.pointwise import PointwiseConv
from naskd.spec.design import Cost, StageSpec

_PATCH = 2
"""Side of a patch: pixels attend to those at the same place of all patches."""


class SelfAttentionBlock(Block):
    """A local ``kernel x kernel`` convolution, a transformer layer on its output, and a convolution that fuses both.

    Four heads, or two or one where four do not divide ``width``. The MLP is ``expansion * width`` wide (the paper's
    expansion is 2), rounded to the nearest integer and at least 1. Ignores ``squeeze_excitation``.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        width, kernel = stage.width, stage.kernel

        def function() -> nn.Module:
            return activation(stage.activation, "silu")

        self.local = nn.Sequential(*conv_norm(in_channels, width, kernel, stride), function())
        self.enter = PointwiseConv(width, width, bias=False)
        hidden = scaled_width(stage.expansion, width)
        self.layer = TransformerLayer(width, plain_heads(width), hidden, function(), _PATCH)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.leave = nn.Sequential(*conv_norm(width, width, 1), function())
        self.fuse = nn.Sequential(*conv_norm(2 * width, width, kernel))
        self.activation = function()

    def pre_activation(self, x: Tensor) -> Tensor:
        """What the fusing convolution and its BatchNorm give."""
        local: Tensor = self.local(x)
        tokens = self.enter(local).permute(0, 2, 3, 1)
        seen = self.norm(self.layer(tokens)).permute(0, 3, 1, 2)
        fused: Tensor = self.fuse(concatenated([local, self.leave(seen)]))
        return fused

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """That of the fusing convolution."""
        norm = self.fuse[-1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        own, kernel = stage.width, stage.kernel
        size = strided(height, stride), strided(width, stride)
        return total(
            (
                conv_norm_cost(in_channels, own, kernel, *size),
                linear_cost(own, own, size[0] * size[1], bias=False),
                TransformerLayer.cost(own, scaled_width(stage.expansion, own), *size, _PATCH),
                norm_cost(own),
                conv_norm_cost(own, own, 1, *size),
                conv_norm_cost(2 * own, own, kernel, *size),
            )
        )
