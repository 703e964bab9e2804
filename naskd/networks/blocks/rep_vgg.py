"""Three branches while it trains, one convolution where it leaves.

Ding, Zhang, Ma, Han, Ding, Sun: RepVGG: Making VGG-style ConvNets Great Again. CVPR 2021, arXiv 2101.03697, section 3.2
and 3.3, fig. 4.
Differs: the large kernel is the stage's, theirs always 3x3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from naskd.networks.block import Block
from naskd.networks.layers import activation, conv_norm, conv_norm_cost, strided, total
from naskd.nn.merging import Merging
from naskd.nn.norm import Norm
from naskd.spec.design import Cost, StageSpec


class Branches(Merging):
    """Sum of a ``kernel x kernel`` and a 1x1 convolution, and of the input where the shape stays, each with BatchNorm.

    ``(B, in, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``. Merged, it is one ``kernel x kernel``
    convolution with a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.large = nn.Sequential(*conv_norm(in_channels, out_channels, kernel, stride))
        self.small = nn.Sequential(*conv_norm(in_channels, out_channels, 1, stride))
        passes = stride == 1 and in_channels == out_channels
        self.identity = Norm(out_channels) if passes else None

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.merged:
            one: Tensor = self.convolution(x)
            return one
        summed: Tensor = self.large(x) + self.small(x)
        return summed if self.identity is None else summed + self.identity(x)

    @torch.no_grad()
    def merge(self) -> None:
        """See :class:`~naskd.nn.merging.Merging`; uses BatchNorm's running statistics."""
        if self.merged:
            return
        large, small = self.large[0], self.small[0]
        assert isinstance(large, nn.Conv2d)
        assert isinstance(small, nn.Conv2d)
        side, out_channels = large.kernel_size[0], large.out_channels
        padding = [side // 2] * 4
        kernels = [(large.weight, self.large[1]), (functional.pad(small.weight, padding), self.small[1])]
        if self.identity is not None:
            eye = torch.eye(out_channels, device=large.weight.device, dtype=large.weight.dtype)
            kernels.append((functional.pad(eye[:, :, None, None], padding), self.identity))
        found = [_folded(kernel, norm) for kernel, norm in kernels]
        merged: nn.Conv2d = torch.nn.utils.skip_init(  # type: ignore[no-untyped-call]  # torch's is not annotated
            nn.Conv2d,
            large.in_channels,
            out_channels,
            side,
            large.stride,
            side // 2,
            device=large.weight.device,
            dtype=large.weight.dtype,
        )
        merged.weight.copy_(torch.stack([kernel for kernel, _ in found]).sum(0))
        assert merged.bias is not None
        merged.bias.copy_(torch.stack([bias for _, bias in found]).sum(0))
        if large.weight.is_contiguous(memory_format=torch.channels_last):
            merged = merged.to(memory_format=torch.channels_last)
        self.convolution = merged.train(self.training)
        del self.large, self.small, self.identity
        self.merged = True


def _folded(kernel: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel ``(out, in, k, k)`` and bias ``(out,)`` of a convolution with the BatchNorm after it."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return kernel * gain[:, None, None, None], norm.bias - norm.running_mean * gain


class RepVGG(Block):
    """:class:`Branches`, then ReLU. Costs are of the merged convolution.

    Ignores ``expansion`` and ``squeeze_excitation``.
    """

    def __init__(self, in_channels: int, stage: StageSpec, stride: int) -> None:
        super().__init__(in_channels, stage, stride)
        self.branches = Branches(in_channels, stage.width, stage.kernel, stride)
        self.activation = activation(stage.activation, "relu")

    def pre_activation(self, x: Tensor) -> Tensor:
        """The sum of the branches."""
        summed: Tensor = self.branches(x)
        return summed

    @classmethod
    def cost(cls, in_channels: int, stage: StageSpec, stride: int, height: int, width: int) -> Cost:
        """Closed form."""
        size = strided(height, stride), strided(width, stride)
        trained = total(
            conv_norm_cost(in_channels, stage.width, kernel, *size) for kernel in (stage.kernel, 1)
        )
        weights = stage.kernel**2 * in_channels * stage.width
        n_params = weights + stage.width
        return Cost(
            macs=weights * size[0] * size[1],
            n_params=n_params,
            size_bytes=4 * n_params,
            unmerged_macs=trained.macs,
        )
