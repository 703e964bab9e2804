"""Evaluation on a whole split."""

import torch
from torch import Tensor, nn

from naskd.taps import evaluation_mode
from naskd.training.compute import Compute

EVALUATION_BATCH = 512


def predict(network: nn.Module, images: Tensor, compute: Compute) -> Tensor:
    """Class indices ``(N,)``, on the device, of uint8 images ``(N, C, H, W)``; all modes are restored.

    Images that are not on the device travel there batch by batch.
    """
    found = []
    with evaluation_mode(network), torch.no_grad(), compute.autocast():
        for batch in torch.split(images, EVALUATION_BATCH):
            x = batch.to(compute.device, non_blocking=True).float().div_(255)
            if compute.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            found.append(network(x).argmax(1))
    return torch.cat(found)


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Fraction in [0, 1] of equal entries."""
    return int((predictions == labels).sum()) / len(labels)
