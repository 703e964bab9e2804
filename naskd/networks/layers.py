"""The layers that blocks are made of, each beside its cost in closed form.

Every convolution has odd kernels, 'same' padding and no bias, and is followed by BatchNorm (Ioffe &
Szegedy, ICML 2015, arXiv 1502.03167). A map of side ``n`` therefore has side ``ceil(n / stride)``
afterwards, also at ``n = 1``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from naskd.nn.layout import spatial_mean
from naskd.nn.norm import Norm
from naskd.nn.pointwise import PointwiseConv
from naskd.spec.design import INTEGER_BITS, OWN, Cost

_FLOAT, _INTEGER = 4, 8  # bytes
EPSILON = 1e-6
"""Of LayerNorm, as in ViT and ConvNeXt."""

ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
}
"""By the name that a design has for it."""


def activation(name: str, own: str) -> nn.Module:
    """A fresh activation, not in place; `own` where `name` says that a block has its own."""
    return ACTIVATIONS[own if name == OWN else name]()


def strided(size: int, stride: int) -> int:
    """Side of a map after a 'same' convolution with `stride`: ``ceil(size / stride)``."""
    return -(-size // stride)


def scaled_width(ratio: float, channels: int) -> int:
    """``ratio * channels`` rounded to the nearest integer, halves up, and at least 1."""
    return max(1, int(ratio * channels + 0.5))


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution and its BatchNorm, ``(B, in, H, W)`` to ``(B, out, ceil(H/s), ceil(W/s))``."""
    conv: nn.Conv2d
    if kernel == 1 and groups == 1:
        conv = PointwiseConv(in_channels, out_channels, stride, bias=False)
    else:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, Norm(out_channels)


def conv_norm_cost(
    in_channels: int, out_channels: int, kernel: int, height: int, width: int, *, groups: int = 1
) -> Cost:
    """Of :func:`conv_norm`; `height` and `width` are those of its output.

    Padding is counted as if it were image, as every counter does.
    """
    weights = kernel * kernel * (in_channels // groups) * out_channels
    n_params = weights + 2 * out_channels
    return Cost(
        macs=weights * height * width,
        n_params=n_params,
        # Running mean and variance, and the counter of batches.
        size_bytes=_FLOAT * (n_params + 2 * out_channels) + _INTEGER,
    )


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """A residual block's shortcut: the identity, or 1x1 convolution and BatchNorm where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(*conv_norm(in_channels, out_channels, 1, stride))


def projection_cost(in_channels: int, out_channels: int, stride: int, height: int, width: int) -> Cost:
    """Of :func:`projection`; `height` and `width` are those of its output."""
    if stride == 1 and in_channels == out_channels:
        return Cost(macs=0, n_params=0, size_bytes=0)
    return conv_norm_cost(in_channels, out_channels, 1, height, width)


def linear_cost(in_features: int, out_features: int, places: int = 1, *, bias: bool = True) -> Cost:
    """Of ``nn.Linear`` at so many places, such as tokens or pixels of a map."""
    weights = in_features * out_features
    n_params = weights + (out_features if bias else 0)
    return Cost(macs=weights * places, n_params=n_params, size_bytes=_FLOAT * n_params)


def integer_cost(cost: Cost, n_weights: int, out_channels: int, bits: int) -> Cost:
    """Of a layer with a bias, BatchNorm's or its own, whose weights have 8 or 4 bits.

    Args:
        cost: Of the same layer in floating point.
        n_weights: Without those of BatchNorm.
        out_channels: Each has a scale and a bias of 32 bits.
        bits: Of the weights.
    """
    n_bytes = -(-n_weights * bits // 8) + 2 * _FLOAT * out_channels
    return replace(cost, size_bytes=n_bytes, bit_ops=cost.macs * bits * INTEGER_BITS)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each place of a map, ``(B, C, H, W)`` to the same.

    Ba, Kiros, Hinton: Layer Normalization. 2016, arXiv 1607.06450; over channels alone as in ConvNeXt (Liu et al., CVPR
    2022, arXiv 2201.03545).

    Args:
        channels: ``C``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        places = x.permute(0, 2, 3, 1)
        normed = functional.layer_norm(places, self.weight.shape, self.weight, self.bias, EPSILON)
        return normed.permute(0, 3, 1, 2)


def channel_norm(channels: int) -> nn.Module:
    """A :class:`ChannelNorm`; none of one channel, of which it would leave nothing but its bias."""
    return ChannelNorm(channels) if channels > 1 else nn.Identity()


def channel_norm_cost(channels: int) -> Cost:
    """Of :func:`channel_norm`."""
    return norm_cost(channels) if channels > 1 else Cost(macs=0, n_params=0, size_bytes=0)


def norm_cost(features: int) -> Cost:
    """Of a LayerNorm."""
    return Cost(macs=0, n_params=2 * features, size_bytes=_FLOAT * 2 * features)


class FillUp(nn.Module):
    """A map with zeros on the right and below, until its sides are multiples of a number.

    Args:
        multiple: At least 1.
    """

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same, or a larger one."""
        below, right = -x.shape[2] % self.multiple, -x.shape[3] % self.multiple
        return functional.pad(x, (0, right, 0, below)) if below or right else x


def patches(
    in_channels: int, out_channels: int, patch: int, *, bias: bool = True
) -> tuple[FillUp, nn.Conv2d]:
    """Patches of `patch` pixels a side that do not overlap, each to a vector.

    ``(B, in, H, W)`` to ``(B, out, ceil(H / patch), ceil(W / patch))``.
    """
    return FillUp(patch), nn.Conv2d(in_channels, out_channels, patch, patch, bias=bias)


def patches_cost(
    in_channels: int, out_channels: int, patch: int, height: int, width: int, *, bias: bool = True
) -> Cost:
    """Of :func:`patches`; `height` and `width` are those of its output."""
    return linear_cost(patch * patch * in_channels, out_channels, height * width, bias=bias)


def pooling(name: str) -> nn.Module | None:
    """What halves a map before a stage, ``n`` to ``ceil(n / 2)``; None where the first block has the stride."""
    if name == "average_pooling":
        return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
    return nn.MaxPool2d(3, 2, 1) if name == "max_pooling" else None


def total(costs: Iterable[Cost]) -> Cost:
    """The sum."""
    parts = list(costs)
    return Cost(
        macs=sum(part.macs for part in parts),
        n_params=sum(part.n_params for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        bit_ops=sum(part.bit_ops for part in parts),
        unmerged_macs=sum(part.unmerged_macs for part in parts),
    )


def _rename_convolutions(_: nn.Module, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
    """Files from before 2026-11-26 have 1x1 convolutions in the gate: the same numbers under other names."""
    for old, new in (("gate.1", "reduce"), ("gate.3", "expand")):
        if (weight := state_dict.pop(f"{prefix}{old}.weight", None)) is not None:
            state_dict[f"{prefix}{new}.weight"] = weight.flatten(1)
            state_dict[f"{prefix}{new}.bias"] = state_dict.pop(f"{prefix}{old}.bias")


class SqueezeExcitation(nn.Module):
    """Each channel times a gate in (0, 1), computed from the means of all channels.

    Hu, Shen, Sun: Squeeze-and-Excitation Networks. CVPR 2018, arXiv 1709.01507, eq. 2 to 4.
    Differs: the reduction is 4, as in MobileNetV3 (arXiv 1905.02244), not 16, because mobile blocks are
    narrow.

    Args:
        channels: Of input and output, ``(B, channels, H, W)``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = self.reduced_width(channels)
        self.reduce = nn.Linear(channels, reduced)
        self.expand = nn.Linear(reduced, channels)
        self.register_load_state_dict_pre_hook(_rename_convolutions)  # type: ignore[no-untyped-call]  # torch's is not annotated

    @staticmethod
    def reduced_width(channels: int) -> int:
        """A quarter of `channels`, rounded down, at least 1."""
        return max(1, channels // 4)

    @classmethod
    def cost(cls, channels: int) -> Cost:
        """Independent of the resolution: its products are of means."""
        reduced = cls.reduced_width(channels)
        return total((linear_cost(channels, reduced), linear_cost(reduced, channels)))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        gate = self.expand(self.reduce(spatial_mean(x)).relu()).sigmoid()
        gated: Tensor = x * gate[:, :, None, None]
        return gated
