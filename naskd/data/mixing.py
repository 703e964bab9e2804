"""Mixup and cutmix: images that are made of two, and labels that say so.

Mixup: Zhang et al., ICLR 2018, arXiv 1710.09412, section 2. Cutmix: Yun et al., ICCV 2019, arXiv 1905.04899, section
3.1.

Differs: an image's partner is the one before it in the batch, which is in random order, instead of one drawn at random:
no image is its own partner. As in both papers' code, one share is drawn for a batch.
"""

import numpy as np
import torch
from torch import Tensor

from naskd.spec.seeds import derive_seed


def shares(n: int, alpha: float, *, seed: int, epoch: int) -> list[float]:
    """The share in [0, 1] of each batch's own images, from ``Beta(alpha, alpha)``.

    Args:
        n: Number of batches.
        alpha: Above 0.
        seed: Of the training.
        epoch: From 0.
    """
    rng = np.random.default_rng(derive_seed("mixing", seed, epoch))
    return [float(share) for share in rng.beta(alpha, alpha, n)]


def mixup(images: Tensor, share: float) -> Tensor:
    """``share x_i + (1 - share) x_(i-1)``, ``(B, C, H, W)``."""
    return torch.lerp(images.roll(1, 0), images, share)


def cutmix(images: Tensor, share: float, *, seed: int) -> tuple[Tensor, float]:
    """Each image with a box of its partner's; the box has the area ``1 - share`` before it is cut at the borders.

    Args:
        images: ``(B, C, H, W)``.
        share: In [0, 1].
        seed: Of the place of the box, whose centre is anywhere in the image.

    Returns:
        New images, and the share that each really kept.
    """
    height, width = images.shape[2:]
    rng = np.random.default_rng(seed)
    side = (1 - share) ** 0.5
    rows, columns = (_cut(int(rng.integers(size)), round(side * size), size) for size in (height, width))
    mixed = images.clone()
    mixed[:, :, rows, columns] = images.roll(1, 0)[:, :, rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - area / (height * width)


def _cut(centre: int, side: int, size: int) -> slice:
    start = centre - side // 2
    return slice(max(0, start), max(0, min(size, start + side)))
