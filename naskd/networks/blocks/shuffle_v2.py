"""ShuffleNet V2 unit.

Ma, Zhang, Zheng, Sun: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design. ECCV 2018, arXiv
1807.11164, fig. 3c and 3d.
Differs: they shuffle channels after a unit and split them in the middle before the next. Here every second channel goes
to each half, so that each half too gets half of what was passed on and half of what was transformed. A unit that
changes the number of channels without a stride has the form of the one with a stride. Of an odd number of channels, the
half that is transformed is the larger one.
"""

from torch import Tensor, nn

from naskd.networks.block import Block
from naskd.networks.layers import activation, conv_norm, conv_norm_cost, strided, total
from naskd.nn.layout import concatenated
from naskd.spec.design import Cost, StageSpec


class PartlyActivated(nn.Module):
    """An activation of all channels but the first ones, ``(B, C, H, W)`` to the same.

    Args:
        kept: How many are passed on as they are.
        function: Of the others.
    """

    def __init__(self, kept: int, function: nn.Module) -> None:
        super().__init__()
        self.kept = kept
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return concatenated([x[:, : self.kept], self.function(x[:, self.kept :])])


class ShuffleV2(Block):
    """Half of the channels are passed on, others go through 1x1, depthwise ``kernel x kernel`` and 1x1 convolutions.

    Where the shape changes, both branches read all channels: one is those three convolutions, the other a depthwise and
    a 1x1 convolution. Ignores ``expansion`` and ``squeeze_excitation``.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        self.kept = stage.width // 2
        self.splits = stride == 1 and in_channels == stage.width
        made = stage.width - self.kept
        read, inner = (made if self.splits else in_channels), made
        function = activation(stage.activation, "relu")
        self.branch = nn.Sequential(
            *conv_norm(read, inner, 1),
            activation(stage.activation, "relu"),
            *conv_norm(inner, inner, stage.kernel, stride, groups=inner),
            *conv_norm(inner, made, 1),
        )
        self.beside: nn.Module | None = None
        if self.kept and not self.splits:
            self.beside = nn.Sequential(
                *conv_norm(in_channels, in_channels, stage.kernel, stride, groups=in_channels),
                *conv_norm(in_channels, self.kept, 1),
            )
        self.activation = PartlyActivated(self.kept, function) if self.splits and self.kept else function

    def pre_activation(self, x: Tensor) -> Tensor:
        """What is passed on or made beside, and the branch's output; the activation leaves alone what is passed on."""
        made: Tensor
        if not self.splits:
            made = self.branch(x)
            return made if self.beside is None else concatenated([self.beside(x), made])
        if not self.kept:
            made = self.branch(x)
            return made
        return concatenated([x[:, 1::2], self.branch(x[:, ::2])])

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        kept = stage.width // 2
        made, splits = stage.width - kept, stride == 1 and in_channels == stage.width
        read = made if splits else in_channels
        size = strided(height, stride), strided(width, stride)
        parts = [
            conv_norm_cost(read, made, 1, height, width),
            conv_norm_cost(made, made, stage.kernel, *size, groups=made),
            conv_norm_cost(made, made, 1, *size),
        ]
        if kept and not splits:
            parts.append(conv_norm_cost(in_channels, in_channels, stage.kernel, *size, groups=in_channels))
            parts.append(conv_norm_cost(in_channels, kept, 1, *size))
        return total(parts)
