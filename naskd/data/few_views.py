"""Few of the views of an image, so that what a teacher says of them stays small; see docs/decisions/few-views.md."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from naskd.data.views import AnyViews, Gather


@dataclass(frozen=True)
class BoundedViews:
    """The first views of each sample alone, which come again and again: what is remembered of them stops growing.

    A sample keeps its own order, so that two samples show different views. The views of an epoch are those that it has
    without a bound, up to the first that comes again: trainings with different bounds share what is remembered.

    Args:
        views: All that there are.
        most: At most so many of a sample, at least 1.

    Raises:
        ValueError: `most` is below 1.
    """

    views: "AnyViews"
    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"at least 1 view must be shown, got {self.most}")

    @property
    def n_samples(self) -> int:
        """See :class:`~naskd.data.views.AnyViews`."""
        return self.views.n_samples

    @property
    def n_views(self) -> int:
        """See :class:`~naskd.data.views.AnyViews`."""
        return min(self.most, self.views.n_views)

    @property
    def fingerprint(self) -> str:
        """That of the views without a bound, whose first columns these are."""
        return self.views.fingerprint

    def view_ids(self, index: Tensor, epoch: int | Tensor) -> Tensor:
        """See :class:`~naskd.data.views.AnyViews`; in [0, V) of the views without a bound."""
        return self.views.view_ids(index, epoch % self.n_views)

    def gatherer(self, shape: tuple[int, ...], *, channels_last: bool, once: bool = False) -> "Gather":
        """See :class:`~naskd.data.views.AnyViews`."""
        return self.views.gatherer(shape, channels_last=channels_last, once=once)

    def to(self, device: torch.device | str) -> "BoundedViews":
        """See :class:`~naskd.data.views.AnyViews`."""
        return BoundedViews(self.views.to(device), self.most)
