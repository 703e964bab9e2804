"""Networks that share the student's lower stages, each with a last stage and a classifier of its own."""

from torch import Tensor, nn

from naskd.nn.layout import spatial_mean
from naskd.spec.errors import InputError


class Branch(nn.Module):
    """A branch's own part: features ``(B, C, H, W)`` of the last shared stage to logits ``(B, K)``.

    Args:
        network: A whole network with ``stages`` and a ``head``; its last stage and its classifier are taken.

    Raises:
        InputError: It is not made of stages.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        stages, head = getattr(network, "stages", None), getattr(network, "head", None)
        if not (isinstance(stages, nn.ModuleList) and len(stages) > 1 and isinstance(head, nn.Module)):
            raise InputError(
                f"a branch needs a network of at least 2 stages and a head, got a {type(network).__name__}"
            )
        self.stage = stages[-1]
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.head(spatial_mean(self.stage(features)))
        return logits
