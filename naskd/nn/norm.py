"""BatchNorm as networks have it here."""

import torch.nn.functional as F
from torch import Tensor, nn


class Norm(nn.BatchNorm2d):
    """BatchNorm that does not count its batches, one small operation a layer and step.

    The count is for averages over all batches (``momentum=None``). It stays a part of the state, where others look for
    it, and stays 0. What knows layers by their exact type (fusion for quantization) takes it for another one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        if self.momentum is None:  # statistics are gathered anew
            return super().forward(x)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
