"""Inverted residual whose depthwise convolution has kernels of several sides.

Tan, Le: MixConv: Mixed Depthwise Convolutional Kernels. BMVC 2019, arXiv 1907.09595, fig. 2 and section 3.2 (channels
in equal parts, kernels 3, 5, ... up to the largest).
Differs: each part has a BatchNorm of its own, which is the same as one after all. Squeeze-excitation as in
:class:`~naskd.networks.layers.SqueezeExcitation`. The papers' networks choose 1 to 5 parts for each layer; here the
stage's kernel does.
"""

import torch
from torch import Tensor, nn

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
from naskd.nn.layout import concatenated
from naskd.spec.design import Cost, StageSpec


class MixedDepthwise(nn.Module):
    """Depthwise convolutions of several kernels side by side, each of a part of the channels.

    ``(B, C, H, W)`` to ``(B, C, ceil(H / stride), ceil(W / stride))``.

    Args:
        channels: ``C``, at least 1.
        kernel: Largest side.
        stride: 1 or 2.
    """

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        parts = self.parts(channels, kernel)
        self.widths = [width for width, _ in parts]
        self.convolutions = nn.ModuleList(
            nn.Sequential(*conv_norm(width, width, side, stride, groups=width)) for width, side in parts
        )

    @staticmethod
    def parts(channels: int, kernel: int) -> list[tuple[int, int]]:
        """Channels and kernel of each part: kernels 3, 5, ... `kernel`; the first has what cannot be shared equally."""
        sides = list(range(3, kernel + 1, 2)) or [1]
        each = channels // len(sides)
        widths = [channels - each * (len(sides) - 1), *([each] * (len(sides) - 1))]
        return [(width, side) for width, side in zip(widths, sides, strict=True) if width]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        parts = [x] if len(self.widths) == 1 else torch.split(x, self.widths, 1)
        made = [layers(part) for layers, part in zip(self.convolutions, parts, strict=True)]
        return made[0] if len(made) == 1 else concatenated(made)

    @classmethod
    def cost(cls, channels: int, kernel: int, height: int, width: int) -> Cost:
        """Closed form; `height` and `width` are those of its output."""
        parts = cls.parts(channels, kernel)
        return total(conv_norm_cost(part, part, side, height, width, groups=part) for part, side in parts)


class MixedKernel(LinearBottleneck):
    """1x1 expansion, depthwise convolutions of kernels 3, 5, ... ``kernel``, 1x1 projection without an activation.

    The hidden width is ``expansion * in_channels`` (the paper's is 1 to 6), rounded to the nearest integer and at least
    1; where it equals ``in_channels`` there is no expansion convolution. With a kernel of 3 it is an inverted residual.
    The input is added where stride and channels allow it.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        hidden = scaled_width(stage.expansion, in_channels)
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers += [*conv_norm(in_channels, hidden, 1), activation(stage.activation, "relu")]
        layers += [MixedDepthwise(hidden, stage.kernel, stride), activation(stage.activation, "relu")]
        if stage.squeeze_excitation:
            layers.append(SqueezeExcitation(hidden))
        layers += conv_norm(hidden, stage.width, 1)
        self.ends_linearly(layers, stride == 1 and in_channels == stage.width)

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        hidden = scaled_width(stage.expansion, in_channels)
        size = strided(height, stride), strided(width, stride)
        parts = [
            MixedDepthwise.cost(hidden, stage.kernel, *size),
            conv_norm_cost(hidden, stage.width, 1, *size),
        ]
        if hidden != in_channels:
            parts.append(conv_norm_cost(in_channels, hidden, 1, height, width))
        if stage.squeeze_excitation:
            parts.append(SqueezeExcitation.cost(hidden))
        return total(parts)
