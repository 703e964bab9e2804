"""ConvNeXt block.

Liu, Mao, Wu, Feichtenhofer, Darrell, Xie: A ConvNet for the 2020s. CVPR 2022, arXiv 2201.03545, fig. 4 right and
section 2.6 (separate down-sampling).
Differs: the layer scale begins at 0.1, as CaiT has it for networks of up to 18 blocks (Touvron et al., ICCV 2021, arXiv
2103.17239, section 2); theirs at 1e-6, which short trainings of small students hardly leave. There is no stochastic
depth.
"""

import torch
from torch import Tensor, nn

from naskd.networks.block import Block
from naskd.networks.layers import (
    activation,
    channel_norm,
    channel_norm_cost,
    linear_cost,
    patches,
    patches_cost,
    scaled_width,
    strided,
    total,
)
from naskd.nn.pointwise import PointwiseConv
from naskd.spec.design import Cost, StageSpec

_SCALE = 0.1
"""Of the branch when a training begins."""


class ConvNeXt(Block):
    """Depthwise ``kernel x kernel``, LayerNorm over channels, 1x1 expansion, GELU, 1x1 projection; scaled, and added.

    The paper's kernel is 7 and its expansion 4; the hidden width is ``expansion * width``, rounded to the nearest
    integer and at least 1. Where the shape changes, LayerNorm and a convolution of kernel ``stride`` come first, whose
    output is the input of the rest. Ignores ``squeeze_excitation``. The block ends linearly.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        width, kernel = stage.width, stage.kernel
        hidden = scaled_width(stage.expansion, width)
        self.downsampling: nn.Module = nn.Identity()
        if stride > 1 or in_channels != width:
            self.downsampling = nn.Sequential(channel_norm(in_channels), *patches(in_channels, width, stride))
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width),
            channel_norm(width),
            PointwiseConv(width, hidden),
            activation(stage.activation, "gelu"),
            PointwiseConv(hidden, width),
        )
        self.scale = nn.Parameter(torch.full((width,), _SCALE))
        self.activation = nn.Identity()

    def pre_activation(self, x: Tensor) -> Tensor:
        """The output: the block ends linearly."""
        x = self.downsampling(x)
        # Scaled place by place, so that the gradient of the branch comes in its layout.
        scaled = (self.branch(x).permute(0, 2, 3, 1) * self.scale).permute(0, 3, 1, 2)
        output: Tensor = x + scaled
        return output

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        own, hidden = stage.width, scaled_width(stage.expansion, stage.width)
        size = strided(height, stride), strided(width, stride)
        places, weights = size[0] * size[1], stage.kernel**2 * own
        parts = [
            Cost(weights * places, weights + own, 4 * (weights + own)),
            channel_norm_cost(own),
            linear_cost(own, hidden, places),
            linear_cost(hidden, own, places),
            Cost(0, own, 4 * own),
        ]
        if stride > 1 or in_channels != own:
            parts += [channel_norm_cost(in_channels), patches_cost(in_channels, own, stride, *size)]
        return total(parts)
