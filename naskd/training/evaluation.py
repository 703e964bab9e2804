"""Evaluation on a whole split."""

import torch
from torch import Tensor, nn

from naskd.taps import evaluation_mode
from naskd.training.compute import Compute

EVALUATION_BATCH = 512
"""On a CPU, whose caches larger batches leave."""
EVALUATED = 2**24, 4096
"""On a GPU: numbers and images, at most at once. A batch costs its launches, not the images of a small student."""


def predict(network: nn.Module, images: Tensor, compute: Compute) -> Tensor:
    """Class indices ``(N,)``, on the device, of uint8 images ``(N, C, H, W)``; all modes are restored.

    Images that are not on the device travel there batch by batch.
    """
    found: list[Tensor] = []
    done, size = 0, _batch_size(images, compute)
    with evaluation_mode(network), torch.no_grad(), compute.autocast():
        while done < len(images):
            try:
                x = images[done : done + size].to(compute.device, non_blocking=True).float().div_(255)
                if compute.channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)
                found.append(network(x).argmax(1))
            except torch.cuda.OutOfMemoryError:
                if size <= EVALUATION_BATCH:
                    raise
                size //= 2
                continue
            done += size
    return torch.cat(found)


def _batch_size(images: Tensor, compute: Compute) -> int:
    if compute.device.type == "cpu":
        return EVALUATION_BATCH
    numbers, most = EVALUATED
    return max(1, min(most, numbers // max(1, images[0].numel()))) if len(images) else 1


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Fraction in [0, 1] of equal entries."""
    return int((predictions == labels).sum()) / len(labels)
