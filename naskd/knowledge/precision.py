"""Arithmetic of the losses: float32 at least, whatever the networks compute in."""

import torch
from torch import Tensor


def widened(tensor: Tensor) -> Tensor:
    """The tensor in float32 when it is narrower (bfloat16, float16), else as it is: float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
