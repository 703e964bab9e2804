"""Ghost bottleneck: half of the channels of each 1x1 convolution are cheap filters of the other half.

Han, Wang, Tian, Guo, Xu, Xu: GhostNet: More Features from Cheap Operations. CVPR 2020, arXiv 1911.11907, fig. 2 and 3.
Differs: cheap filters have the stage's kernel, theirs always 3x3, so that the kernel is a choice in blocks without a
stride too. Squeeze-excitation has a sigmoid and the reduction of :class:`~naskd.networks.layers.SqueezeExcitation`.
Of an odd number of channels they compute one more and drop it; here there is one cheap filter less.
"""

from torch import Tensor, nn

from naskd.networks.block import Block
from naskd.networks.layers import (
    SqueezeExcitation,
    activation,
    conv_norm,
    conv_norm_cost,
    scaled_width,
    strided,
    total,
)
from naskd.nn.layout import concatenated
from naskd.spec.design import OWN, Cost, StageSpec


class GhostModule(nn.Module):
    """``(B, in, H, W)`` to ``(B, out, H, W)``: a 1x1 convolution to half the channels, and a filter of each of those.

    Args:
        in_channels: At least 1.
        out_channels: At least 1; of an odd number the cheap filters are one less. Of one channel there are none.
        kernel: Side of the cheap filters.
        function: Name of an activation after both; "" for none.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, function: str) -> None:
        super().__init__()
        primary, cheap = self.parts(out_channels)
        self.primary = self._layers(in_channels, primary, 1, 1, function)
        self.cheap = self._layers(cheap, cheap, kernel, cheap, function) if cheap else None
        self.n_filtered = cheap

    @staticmethod
    def _layers(
        in_channels: int, out_channels: int, kernel: int, groups: int, function: str
    ) -> nn.Sequential:
        layers: list[nn.Module] = [*conv_norm(in_channels, out_channels, kernel, groups=groups)]
        return nn.Sequential(*layers, *([activation(OWN, function)] if function else []))

    @staticmethod
    def parts(out_channels: int) -> tuple[int, int]:
        """Channels of the 1x1 convolution, and cheap ones."""
        cheap = out_channels // 2
        return out_channels - cheap, cheap

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        found: Tensor = self.primary(x)
        if self.cheap is None:
            return found
        read = found if found.shape[1] == self.n_filtered else found[:, : self.n_filtered]
        return concatenated([found, self.cheap(read)])

    @classmethod
    def cost(cls, in_channels: int, out_channels: int, kernel: int, height: int, width: int) -> Cost:
        """Closed form."""
        primary, cheap = cls.parts(out_channels)
        parts = [conv_norm_cost(in_channels, primary, 1, height, width)]
        if cheap:
            parts.append(conv_norm_cost(cheap, cheap, kernel, height, width, groups=cheap))
        return total(parts)


class Ghost(Block):
    """A ghost module that expands, a depthwise convolution where there is a stride, and a ghost module to ``width``.

    The hidden width is ``expansion * in_channels`` (the paper's is 1 to 6.7), rounded to the nearest integer and at
    least 1. The shortcut is the identity, or a depthwise ``kernel x kernel`` and a 1x1 convolution where the shape
    changes. The block ends linearly.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        hidden, width, kernel = scaled_width(stage.expansion, in_channels), stage.width, stage.kernel
        function = "relu" if stage.activation == OWN else stage.activation
        layers: list[nn.Module] = [GhostModule(in_channels, hidden, kernel, function)]
        if stride > 1:
            layers += conv_norm(hidden, hidden, kernel, stride, groups=hidden)
        if stage.squeeze_excitation:
            layers.append(SqueezeExcitation(hidden))
        self.branch = nn.Sequential(*layers, GhostModule(hidden, width, kernel, ""))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != width:
            self.shortcut = nn.Sequential(
                *conv_norm(in_channels, in_channels, kernel, stride, groups=in_channels),
                *conv_norm(in_channels, width, 1),
            )
        self.activation = nn.Identity()

    def pre_activation(self, x: Tensor) -> Tensor:
        """The output: the block ends linearly."""
        summed: Tensor = self.branch(x) + self.shortcut(x)
        return summed

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        hidden, kernel = scaled_width(stage.expansion, in_channels), stage.kernel
        size = strided(height, stride), strided(width, stride)
        parts = [
            GhostModule.cost(in_channels, hidden, kernel, height, width),
            GhostModule.cost(hidden, stage.width, kernel, *size),
        ]
        if stride > 1:
            parts.append(conv_norm_cost(hidden, hidden, kernel, *size, groups=hidden))
        if stage.squeeze_excitation:
            parts.append(SqueezeExcitation.cost(hidden))
        if stride > 1 or in_channels != stage.width:
            parts.append(conv_norm_cost(in_channels, in_channels, kernel, *size, groups=in_channels))
            parts.append(conv_norm_cost(in_channels, stage.width, 1, *size))
        return total(parts)
