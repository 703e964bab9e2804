"""A block of one's own: a convolution whose channels are gated by their own mean."""

from torch import Tensor, nn

from naskd.networks import BLOCKS, BlockCard
from naskd.networks.block import Block
from naskd.spec.design import StageSpec


class Gated(Block):
    """``relu(norm(conv(x)) * sigmoid(mean over space))``."""

    repeats = True

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        padding = stage.kernel // 2
        self.conv = nn.Conv2d(in_channels, stage.width, stage.kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(stage.width)
        self.activation = nn.ReLU()

    def pre_activation(self, x: Tensor) -> Tensor:
        """Before the ReLU."""
        y: Tensor = self.norm(self.conv(x))
        return y * y.mean((2, 3), keepdim=True).sigmoid()


BLOCKS.register(
    BlockCard(
        name="gated",
        title="a convolution whose channels gate themselves",
        paper="",
        implementation=Gated,
        uses_expansion=False,
        uses_squeeze_excitation=False,
    )
)
