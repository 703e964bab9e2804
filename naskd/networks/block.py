"""The contract of a block."""

import torch
from torch import Tensor, nn

from naskd.networks.layers import strided
from naskd.nn.cost import network_cost
from naskd.spec.design import Cost, StageSpec
from naskd.spec.errors import InputError, MistakeError, undefined
from naskd.spec.places import at


class Block(nn.Module):
    """What stages are made of: ``(B, in_channels, H, W)`` to ``(B, width, ceil(H/stride), ceil(W/stride))``.

    ``forward(x) = activation(pre_activation(x))``, so that knowledge losses on pre-activations see them
    without hooks. A subclass sets :attr:`activation` (``nn.Identity()`` where it ends linearly; never in
    place, since the pre-activation is shown) and writes :meth:`pre_activation`. It may override :meth:`cost`
    with a closed form.

    Args:
        in_channels: Channels of the input.
        stage: What the block is part of.
        stride: Of this block, which is the stage's for its first block and 1 for the others.
    """

    activation: nn.Module

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__()

    def pre_activation(self, x: Tensor) -> Tensor:
        """Output before the last activation."""
        raise undefined(self, "pre_activation")

    def forward(self, x: Tensor) -> Tensor:
        """Output of the block."""
        output: Tensor = self.activation(self.pre_activation(x))
        return output

    def passes_on(self) -> bool:
        """Whether the input is added to the output as it is, so that both have the same channels in the same order."""
        return False

    def importance(self) -> Tensor:
        """How much each output channel matters, ``(width,)``: L1 norms of the filters that make it.

        Li, Kadav, Durdanovic, Samet, Graf: Pruning filters for efficient ConvNets. ICLR 2017, arXiv 1608.08710.

        Raises:
            InputError: The block takes and gives no weights; its card says so.
        """
        raise InputError(f"block {type(self).__name__} gives no weights to others: it has no importance()")

    def take_weights(self, other: "Block", inputs: Tensor, outputs: Tensor) -> None:
        """Begin with the weights of a block of the same type that is as wide or wider; a card says if it can.

        With as many channels it computes the same as `other` then.

        Args:
            other: The block.
            inputs: Which of the other's input channels this one's are, ``(in_channels,)``, ascending.
            outputs: Which of its output channels are kept, ``(width,)``, ascending.

        Raises:
            InputError: It cannot.
        """
        raise InputError(f"block {type(self).__name__} takes no weights of others: it has no take_weights()")

    @property
    def last_norm(self) -> nn.BatchNorm2d | None:
        """The BatchNorm that ends the main branch and describes the pre-activation; None without one."""
        return None

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """MACs for one image of ``height x width``, parameters and bytes, as :class:`Cost` counts them.

        This one builds the block on the ``meta`` device and counts, which takes milliseconds and holds for
        any block.

        Raises:
            MistakeError: The output has another shape than the contract says.
        """
        with torch.device("meta"):
            block = cls(in_channels, stage, stride).eval()
            with torch.no_grad():
                found = tuple(block(torch.empty(1, in_channels, height, width)).shape)
        wanted = (1, stage.width, strided(height, stride), strided(width, stride))
        if found != wanted:
            raise MistakeError(
                f"block {cls.__name__}{at(cls.pre_activation)} turns {(1, in_channels, height, width)} with stride "
                f"{stride} into {found}; its contract is {wanted}: width channels, and sides of ceil(n / stride)"
            )
        return network_cost(block, in_channels, (height, width))
