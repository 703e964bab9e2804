"""Arithmetic of the losses: float32 at least, whatever the networks compute in."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """The tensor in float32 when it is narrower (bfloat16, float16), else as it is: float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context in which matrix products keep the precision of their inputs."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()  # the meta device, on which losses are counted, has no autocast to switch off
