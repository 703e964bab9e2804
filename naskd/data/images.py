"""Images in memory: a labelled set, and the pair of sets that a search may see."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from naskd.spec.sizes import Size, size_of


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images, whole in memory, on one device.

    Args:
        images: ``(N, C, H, W)`` uint8, contiguous, N at least 1.
        labels: ``(N,)`` int64 class indices, not negative.

        streamed: Images stay on the CPU while labels are on a device.

    Raises:
        ValueError: A tensor has another type or shape.
    """

    images: Tensor
    labels: Tensor
    streamed: bool = False

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or not images.is_contiguous():
            raise ValueError(
                f"images must be a contiguous uint8 tensor (N, C, H, W), got "
                f"{images.dtype} {tuple(images.shape)}"
                f"{'' if images.is_contiguous() else ', not contiguous'}"
            )
        if images.shape[0] < 1:
            raise ValueError(f"images must be at least one, got {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels must be an int64 tensor ({images.shape[0]},), got "
                f"{labels.dtype} {tuple(labels.shape)}"
            )
        if labels.device != images.device and not self.streamed:
            raise ValueError(
                f"labels are on {labels.device}, images on {images.device}; move both to one device"
            )
        if int(labels.min()) < 0:
            raise ValueError(f"labels must not be negative, got {int(labels.min())}")

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str, *, streamed: bool = False) -> "ImageSet":
        """The same set on `device`; tensors that are there already are shared, not copied.

        Args:
            device: Where to.
            streamed: Of the labels alone.
        """
        images = self.images if streamed else self.images.to(device)
        return ImageSet(images, self.labels.to(device), streamed)


@dataclass(frozen=True, eq=False)
class SearchData:
    """All that a search sees of its data: training and validation images, never test images.

    Args:
        train: What students and teachers are trained on.
        val: What the search judges them by.
        class_names: In the order of the labels.
        mean, std: Per channel of the training images alone, on the [0, 1] scale; std is the population's and
            at least 1/255, so that a constant channel can be divided by it.
        data_hash: Names the content of the images and labels that the study uses, however they are split.
        split_hash: Names which of them are for training and which for validation.
        unlabelled: ``(U, C, H, W)`` uint8 images of which nobody says what they show, where the training images are;
            None where there are none.
        unlabelled_hash: Names their content and order; empty where there are none.
        first: The same samples in the first modality, which teachers see; None where all see the same images.
        modality_hash: Names the content of the images where they are a second modality; `data_hash` is then of the
            first, which names the samples. Empty where they are the first.
        labels_teach: Whether students may learn from the labels of the training images.

    Raises:
        ValueError: The two sets do not fit each other or the class names.
    """

    train: ImageSet
    val: ImageSet
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_hash: str
    split_hash: str
    unlabelled: Tensor | None = None
    unlabelled_hash: str = ""
    first: "SearchData | None" = None
    modality_hash: str = ""
    labels_teach: bool = True

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.val.images.shape[1:]:
            raise ValueError(
                f"training images are {tuple(self.train.images.shape[1:])}, validation images "
                f"{tuple(self.val.images.shape[1:])}; they must be equal"
            )
        highest = max(int(self.train.labels.max()), int(self.val.labels.max()))
        if highest >= self.n_classes:
            raise ValueError(f"label {highest} has no class name; there are {self.n_classes}")
        if len(self.mean) != self.in_channels or len(self.std) != self.in_channels or min(self.std) <= 0:
            raise ValueError(f"mean and std need one value a channel ({self.in_channels}), std above 0")
        given, train = self.unlabelled, self.train.images
        if given is not None and (
            given.shape[1:] != train.shape[1:] or given.dtype != torch.uint8 or not len(given)
        ):
            raise ValueError(
                f"unlabelled images must be uint8 {tuple(train.shape[1:])} as the training images are, at least one, "
                f"got {given.dtype} {tuple(given.shape)}"
            )
        if self.first is not None:
            self._check_beside(self.first)

    def _check_beside(self, first: "SearchData") -> None:
        for part, own, other in (("training", self.train, first.train), ("validation", self.val, first.val)):
            if len(own) != len(other):
                raise ValueError(f"{len(own)} {part} images stand beside {len(other)} of the first modality")
        if not smaller_by_a_factor(self.train.images.shape[2:], first.train.images.shape[2:]):
            raise ValueError(
                f"images of {self.resolution} pixels stand beside {first.resolution} of the first modality; allowed: "
                "as many, or fewer by a whole factor"
            )

    @property
    def n_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Channels of the images, C."""
        return self.train.images.shape[1]

    @property
    def resolution(self) -> Size:
        """Of the images in pixels: the side of squares, or ``(height, width)``."""
        _, _, height, width = self.train.images.shape
        return size_of(height, width)

    @property
    def for_teachers(self) -> "SearchData":
        """The same samples as teachers see them: these images, or those of the first modality."""
        return self if self.first is None else self.first

    @property
    def n_unlabelled(self) -> int:
        """Number of unlabelled images, U."""
        return 0 if self.unlabelled is None else len(self.unlabelled)

    @property
    def n_bytes(self) -> int:
        """Of all images, in both modalities."""
        unlabelled = 0 if self.unlabelled is None else self.unlabelled.numel()
        beside = 0 if self.first is None else self.first.n_bytes
        return self.train.images.numel() + self.val.images.numel() + unlabelled + beside

    def to(self, device: torch.device | str, *, streamed: bool = False) -> "SearchData":
        """The same data on `device`; see :meth:`ImageSet.to`."""
        train, val = (part.to(device, streamed=streamed) for part in (self.train, self.val))
        unlabelled = self.unlabelled
        if unlabelled is not None and not streamed:
            unlabelled = unlabelled.to(device)
        first = None if self.first is None else self.first.to(device, streamed=streamed)
        return replace(self, train=train, val=val, unlabelled=unlabelled, first=first)


def smaller_by_a_factor(grid: Sequence[int], other: Sequence[int]) -> bool:
    """Whether ``(height, width)`` is that of another divided by one whole number."""
    factor, rest = divmod(other[0], grid[0])
    return rest == 0 and other[1] == factor * grid[1]


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """The same memory as a tensor. Mapped images cannot be written to, and nobody does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)
