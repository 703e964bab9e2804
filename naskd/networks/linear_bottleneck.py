"""What blocks have in common that end in a projection without an activation."""

from torch import Tensor, nn

from naskd.networks.block import Block


class LinearBottleneck(Block):
    """A block of one branch, to which the input is added where stride and channels allow it.

    Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2. CVPR 2018, arXiv 1801.04381, section 3.2.

    Attributes:
        branch: The layers, set by :meth:`ends_linearly`.
        adds_input: Whether the input is added.
    """

    branch: nn.Sequential
    adds_input: bool

    def ends_linearly(self, layers: list[nn.Module], adds_input: bool) -> None:
        """Be made of these layers; called once, when the block is made."""
        self.branch = nn.Sequential(*layers)
        self.adds_input = adds_input
        self.activation = nn.Identity()

    def pre_activation(self, x: Tensor) -> Tensor:
        """The output: the block ends linearly."""
        output: Tensor = self.branch(x)
        return output + x if self.adds_input else output

    def passes_on(self) -> bool:
        """Where stride and channels allow it."""
        return self.adds_input

    @property
    def last_norm(self) -> nn.BatchNorm2d | None:
        """The branch's; None where an activation follows it."""
        norm = self.branch[-1]
        return norm if isinstance(norm, nn.BatchNorm2d) else None
