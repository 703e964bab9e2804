"""The order in which a training sees its samples: a function of seed and epoch, with no state to save."""

import torch
from torch import Tensor

from naskd.spec.errors import InputError
from naskd.spec.seeds import derive_seed


def epoch_order(n: int, seed: int, epoch: int, device: torch.device | str | None = None) -> Tensor:
    """A permutation of ``0..n-1``, drawn on the CPU so that it is the same for every device.

    Args:
        n: Number of samples, at least 1.
        seed: Of the training.
        epoch: From 0.
        device: Where the result goes; None for the CPU.

    Returns:
        ``(n,)`` int64.
    """
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(n, generator=generator).to(device or "cpu")


def epoch_batches(
    n: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    min_batch: int = 2,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    """The batches of an epoch, shuffled.

    A last batch of fewer than `min_batch` samples is left out: batch normalisation has no statistics for one
        sample,
    and relational losses no pairs. Who is left out changes with the epoch.

    Args:
        n: Number of samples, at least `min_batch`.
        batch_size: At least `min_batch`; above `n` there is one batch of `n`.
        seed: Of the training.
        epoch: From 0.
        min_batch: Fewest samples of a batch, at least 1.
        device: Where the indices go; None for the CPU.

    Returns:
        Index tensors ``(b,)`` int64 with ``min_batch <= b <= batch_size``, disjoint.

    Raises:
        InputError: `n` or `batch_size` is below `min_batch`.
    """
    steps_per_epoch(n, batch_size, min_batch)  # whose errors come before any permutation
    return in_batches(epoch_order(n, seed, epoch, device), batch_size, min_batch)


def in_batches(order: Tensor, batch_size: int, min_batch: int = 2) -> list[Tensor]:
    """An order of samples ``(n,)`` cut into batches; see :func:`epoch_batches`."""
    steps = steps_per_epoch(len(order), batch_size, min_batch)
    return list(torch.split(order, batch_size)[:steps])


def steps_per_epoch(n: int, batch_size: int, min_batch: int = 2) -> int:
    """Number of batches that :func:`epoch_batches` returns.

    Raises:
        InputError: `n` or `batch_size` is below `min_batch`, or that below 1.
    """
    if min_batch < 1:
        raise InputError(f"min_batch must be at least 1, got {min_batch}")
    if batch_size < min_batch:
        raise InputError(
            f"batch_size must be at least {min_batch}, the smallest batch that trains, got {batch_size}"
        )
    if n < min_batch:
        raise InputError(f"{n} training samples do not fill the smallest batch of {min_batch}; add images")
    full, rest = divmod(n, batch_size)
    return full + (rest >= min_batch)
