"""Random resized crops with identities: the view of a sample in an epoch follows from the two numbers alone.

Szegedy et al., "Going deeper with convolutions", CVPR 2015, arXiv 1409.4842, section 6: a crop of random area and
aspect ratio, resized to the whole image, mirrored or not. The same crop for teacher and student, and in every trial,
is what Beyer et al., "Knowledge distillation: a good teacher is patient and consistent", CVPR 2022, arXiv 2106.05237,
ask for; keeping what the teacher said of an epoch's crops is FKD (Shen & Xing, ECCV 2022, arXiv 2112.01528).

Differs: the area is at least a quarter of the image and not 8 %, which small students do not fit; a crop that does not
fit into the image is cut to it instead of drawn anew; its corners are not rounded to pixels.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

AREA = 0.25, 1.0
"""Of a crop, as a share of the image: uniform."""
ASPECT = 3 / 4, 4 / 3
"""Width over height of a crop: uniform in the logarithm."""


@dataclass(frozen=True)
class ResizedCrops:
    """One crop a sample and epoch; no two epochs show the same.

    Args:
        n_samples: Number of training samples.
        seed: Of the crops: one a study, so that all its trials ask for the same. A sample's crops do not depend on
            `n_samples`.
        device: Where they are wanted.

    Raises:
        ValueError: There are no samples.
    """

    n_samples: int
    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    augmentation = "resized_crop"
    n_views = 2**31
    """Epochs before the first comes again."""

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {self.n_samples}")

    @property
    def fingerprint(self) -> str:
        """Of all that the crops depend on."""
        return f"{self.augmentation} {self.seed} {AREA} {ASPECT} splitmix64"

    def to(self, device: torch.device | str) -> "ResizedCrops":
        """The same crops, wanted on `device`."""
        return ResizedCrops(self.n_samples, self.seed, torch.device(device))

    def view_ids(self, index: Tensor, epoch: int | Tensor) -> Tensor:
        """Which view each sample shows: the epoch's, ``(B,)`` int64."""
        if isinstance(epoch, Tensor):
            return epoch.to(self.device) % self.n_views
        return torch.full((len(index),), epoch % self.n_views, device=self.device)

    def gatherer(self, shape: tuple[int, ...], *, channels_last: bool, once: bool = False) -> "CropGather":
        """See :class:`~naskd.data.views.AnyViews`."""
        return CropGather(self, channels_last=channels_last)

    def boxes(self, sample: Tensor, view_ids: Tensor) -> Tensor:
        """Crops of samples.

        Args:
            sample: ``(B,)`` int64 positions in the training split.
            view_ids: ``(B,)`` int64.

        Returns:
            ``(B, 5)`` float64: top, left, height and width as shares of the image's, and 1 for mirrored or 0.
        """
        drawn = uniforms(self.seed, sample, view_ids, 5)
        area = AREA[0] + (AREA[1] - AREA[0]) * drawn[:, 0]
        low, high = (torch.tensor(x, dtype=torch.float64).log() for x in ASPECT)
        aspect = torch.exp(low + (high - low) * drawn[:, 1])
        height, width = ((area / aspect).sqrt().clamp(max=1), (area * aspect).sqrt().clamp(max=1))
        top, left = drawn[:, 2] * (1 - height), drawn[:, 3] * (1 - width)
        return torch.stack([top, left, height, width, (drawn[:, 4] < 0.5).double()], dim=1)


class CropGather:
    """Takes crops out of images; see :class:`~naskd.data.views.Gather`.

    Args:
        crops: On the device of the images.
        channels_last: Batches come in ``torch.channels_last``.
    """

    def __init__(self, crops: ResizedCrops, *, channels_last: bool) -> None:
        self.crops = crops
        self.channels_last = channels_last

    def padded(self, images: Tensor) -> Tensor:
        """The images as they are."""
        return images

    def gather(self, pixels: Tensor, place: Tensor, sample: Tensor, view_ids: Tensor) -> Tensor:
        """See :class:`~naskd.data.views.Gather`.

        Bilinear between the pixels' centres; beyond the outermost centres the image goes on as it ends.
        """
        images = pixels.index_select(0, place).div(255)
        top, left, height, width, mirrored = self.crops.boxes(sample, view_ids).float().unbind(1)
        # What lies at (y, x) of the crop, in [-1, 1] from edge to edge, lies at theta (x, y, 1) of the image.
        zero = torch.zeros_like(top)
        theta = torch.stack(
            [width * (1 - 2 * mirrored), zero, 2 * left + width - 1, zero, height, 2 * top + height - 1],
            dim=1,
        )
        grid = functional.affine_grid(theta.view(-1, 2, 3), list(images.shape), align_corners=False)
        found = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return found.contiguous(memory_format=torch.channels_last) if self.channels_last else found


def uniforms(seed: int, sample: Tensor, view_ids: Tensor, n: int) -> Tensor:
    """``(B, n)`` float64 in [0, 1), a function of the numbers alone and the same on every device.

    SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators. OOPSLA 2014) of a state that is
    itself its output for seed, sample and view. Integers, so that no bit depends on what computes them; and nothing is
    kept, so that any crop of any epoch is there without those before it.

    Args:
        seed: In [0, 2^63).
        sample: ``(B,)`` int64.
        view_ids: ``(B,)`` int64.
        n: Numbers for each.
    """
    state = splitmix(splitmix(sample + _signed(seed)) + view_ids)
    draws = torch.arange(n, device=sample.device) * _signed(_STEP)
    bits = splitmix(state[:, None] + draws)
    return ((bits >> 11) & (2**53 - 1)).double() * 2.0**-53


def splitmix(state: Tensor) -> Tensor:
    """The number that SplitMix64 says next in a state: int64, whose bits are those of an unsigned number."""
    z = state + _signed(_STEP)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


_STEP = 0x9E3779B97F4A7C15


def _signed(number: int) -> int:
    """The int64 with the bits of a number modulo 2^64."""
    number %= 2**64
    return number - 2**64 if number >= 2**63 else number


def _shifted(z: Tensor, by: int) -> Tensor:
    """To the right, filled with zeros."""
    return (z >> by) & ((1 << (64 - by)) - 1)
