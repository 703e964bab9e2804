"""Feature maps in 8 bits: whole numbers between the smallest and the largest value of each channel of each sample.

A value is off by half of ``(largest - smallest) / 255`` of its own channel at most. A channel that begins at 0, as all
do after a ReLU, keeps its zeros exactly. A channel with a value that is not finite is NaN as a whole, so that a loss
that would have been wrong is found out.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SMALLEST_GRID = 16
"""Places of a map from which on 8 bits and their ranges take less than 16 bits without."""

_LEVELS = 255
_RANGE_BYTES = 2 * torch.float32.itemsize


def pays(shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether tensors ``(N, ...)`` of a loss are maps that 8 bits make smaller."""
    rounded = dtype.is_floating_point and dtype is not torch.float64
    return rounded and len(shape) == 4 and math.prod(shape[2:]) >= SMALLEST_GRID


def bytes_in_eight_bits(shape: tuple[int, ...]) -> int:
    """Of maps ``(N, C, H, W)``, their ranges included."""
    return math.prod(shape) + math.prod(shape[:2]) * _RANGE_BYTES


@dataclass(frozen=True)
class EightBits:
    """Maps in 8 bits.

    Args:
        codes: ``(N, H, W, C)`` uint8.
        ranges: ``(N, 2, C)`` float32: the value of code 0, and how far two codes are apart.
    """

    codes: Tensor
    ranges: Tensor

    @staticmethod
    def of(maps: Tensor) -> "EightBits":
        """Maps ``(N, C, H, W)`` of any float, on their device."""
        stored = maps.float().movedim(1, -1)
        # Rows first, then columns: over both at once, with channels last, takes torch a hundred times as long.
        lowest, highest = stored.amin(dim=1).amin(dim=1), stored.amax(dim=1).amax(dim=1)
        wide = stored.reshape(len(stored), -1, stored.shape[-1])
        step = (highest - lowest) / _LEVELS
        per_step = torch.where(step > 0, 1 / step, 0)  # 0 of a channel that is the same everywhere
        codes = wide.sub(lowest[:, None]).mul_(per_step[:, None]).add_(0.5)
        step = torch.where(step.isfinite(), step, math.nan)
        packed = codes.to(torch.uint8).contiguous().view(stored.shape)
        return EightBits(packed, torch.stack([lowest, step], dim=1))

    def __len__(self) -> int:
        return len(self.codes)

    def is_of(self, shape: tuple[int, ...]) -> bool:
        """Whether it holds maps ``(N, C, H, W)`` of a shape."""
        n, channels, height, width = shape
        return (
            tuple(self.codes.shape) == (n, height, width, channels)
            and tuple(self.ranges.shape) == (n, 2, channels)
            and (self.codes.dtype, self.ranges.dtype) == (torch.uint8, torch.float32)
        )

    def content_hash(self) -> str:
        """SHA-256 of its bytes, the codes first."""
        found = hashlib.sha256(self.codes.numpy().data)
        found.update(self.ranges.numpy().data)
        return found.hexdigest()

    @property
    def nbytes(self) -> int:
        """In memory and in a file."""
        return int(self.codes.nbytes + self.ranges.nbytes)

    def to(self, device: torch.device | str) -> "EightBits":
        """The same on `device`."""
        return self.with_parts(self.codes.to(device), self.ranges.to(device))

    def with_parts(self, codes: Tensor, ranges: Tensor) -> "EightBits":
        """The same of copies of its parts elsewhere."""
        moved = EightBits(codes, ranges)
        moved.__dict__["_begin_at_zero"] = self._begin_at_zero  # asked of a GPU, it would be waited for
        return moved

    @cached_property
    def _begin_at_zero(self) -> bool:
        return bool((self.ranges[:, 0] == 0).all())

    def rows(self, index: Tensor) -> Tensor:
        """Samples ``(B,)`` as the losses see them: ``(B, C, H, W)`` float32 in channels_last."""
        ranges = self.ranges.index_select(0, index)[:, :, None, None]
        found = self.codes.index_select(0, index).float().mul_(ranges[:, 1])
        if not self._begin_at_zero:
            found.add_(ranges[:, 0])
        return found.movedim(-1, 1)
