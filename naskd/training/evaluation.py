"""Evaluation on a whole split."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from naskd.nn.taps import evaluation_mode
from naskd.training.compute import Compute

EVALUATED = {"cpu": (2**18, 512), "cuda": (2**24, 4096)}
"""Numbers and images, at most at once.

What a CPU's caches hold: larger batches take up to twice as long (``benchmarks/operators.py``). And what fills a
GPU, where a batch costs its launches and not the images of a small student.
"""
FEWEST = 16
"""Images at once, however large they are."""


def predict(network: nn.Module, images: Tensor, compute: Compute) -> Tensor:
    """Class indices ``(N,)``, on the device, of uint8 images ``(N, C, H, W)``; all modes are restored.

    Images that are not on the device travel there batch by batch. For -1 see :func:`named`.
    """
    return _answers(network, images, compute, named)


def named(logits: Tensor) -> Tensor:
    """Which class is named, ``(B, K)`` to ``(B,)``; -1, which no image is of, where a logit is NaN.

    The largest of logits with NaN among them is NaN to torch, and its place would be right for some images by chance.
    """
    return logits.argmax(1).where(~logits.isnan().any(1), -1)


def predict_logits(network: nn.Module, images: Tensor, compute: Compute) -> Tensor:
    """Logits ``(N, K)`` in 32 bits on the CPU; otherwise as :func:`predict`."""
    return _answers(network, images, compute, lambda logits: logits.float().cpu())


def _answers(
    network: nn.Module, images: Tensor, compute: Compute, kept: Callable[[Tensor], Tensor]
) -> Tensor:
    found: list[Tensor] = []
    done, size = 0, _batch_size(images, compute)
    with evaluation_mode(network), torch.no_grad(), compute.autocast():
        while done < len(images):
            try:
                x = images[done : done + size].to(compute.device, non_blocking=True).float().div_(255)
                if compute.channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)
                found.append(kept(network(x)))
            except torch.cuda.OutOfMemoryError:
                if size <= FEWEST:
                    raise
                size //= 2
                continue
            done += size
    return torch.cat(found)


def _batch_size(images: Tensor, compute: Compute) -> int:
    numbers, most = EVALUATED[compute.device.type]
    return max(FEWEST, min(most, numbers // max(1, images[0].numel()))) if len(images) else FEWEST


def balanced_accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur of the fraction of their images that are named right, in [0, 1]."""
    n = torch.bincount(labels)
    right = torch.bincount(labels[predictions == labels], minlength=len(n))
    there = n > 0
    return float((right[there].double() / n[there].double()).mean())


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Fraction in [0, 1] of equal entries."""
    return int((predictions == labels).sum()) / len(labels)
