"""Other ways to show a foreign network an image, such as people train with: to find out that the given one is wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from naskd.data.images import SearchData
from naskd.networks.foreign import Preprocessing

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIDES = (28, 32, 64, 96, 128, 224, 299)
MOST_TIMES = 8
"""Sides so many times larger or smaller are not tried."""


@dataclass(frozen=True)
class Way:
    """A way to show an image.

    Args:
        setting: As a study file says it, or in words.
        preprocessing: The module.
        cost: Of a forward pass, as a multiple of the present one's.
    """

    setting: str
    preprocessing: Preprocessing
    cost: float = 1.0


class Reversed(Preprocessing):
    """Channels in the order blue, green, red, as OpenCV reads them."""

    def forward(self, images: Tensor) -> Tensor:
        """See :class:`Preprocessing`."""
        return super().forward(images).flip(1)


def other_preprocessings(given: Preprocessing, data: SearchData) -> Iterator[Way]:
    """Ways that differ from the given one in one respect: normalisation, order of channels, or size."""
    side, channels = given.resolution, given.channels
    mean, std = given.mean.flatten().tolist(), given.std.flatten().tolist()
    wide = 3 if channels in (None, 3) and (channels == 3 or data.in_channels == 3) else 1
    normalisations: list[tuple[str, Sequence[float], Sequence[float]]] = [
        ("images in [0, 1] as they are", (0.0,), (1.0,)),
        ("images on the scale 0 to 255", (0.0,), (1 / 255,)),
        ("images in [-1, 1]", (0.5,), (0.5,)),
        ("the normalisation of the study's images", data.mean, data.std),
    ]
    if wide == 3:
        normalisations.append(("the normalisation of ImageNet", *IMAGENET))
        caffe = ("means of ImageNet on the scale 0 to 255", IMAGENET[0], (1 / 255,) * 3)
        normalisations.append(caffe)
    for name, other_mean, other_std in normalisations:
        if not _alike(mean, other_mean) or not _alike(std, other_std):
            setting = f"mean = {_listed(other_mean, wide)} and std = {_listed(other_std, wide)} ({name})"
            yield Way(setting, Preprocessing(side, channels, _wide(other_mean, wide), _wide(other_std, wide)))
    if wide == 3 and data.in_channels == 3:
        yield Way(
            "channels in the order blue, green, red (turn them round in the builder's network)",
            Reversed(side, channels, mean, std),
        )
    own = data.resolution if isinstance(data.resolution, int) else max(data.resolution)
    now = side or own
    for other in dict.fromkeys((own, *SIDES)):
        if other != now and 1 / MOST_TIMES <= other / now <= MOST_TIMES:
            yield Way(f"resolution = {other}", Preprocessing(other, channels, mean, std), (other / now) ** 2)


def _wide(values: Sequence[float], wide: int) -> Sequence[float]:
    return values if len(values) in (1, wide) else (sum(values) / len(values),)


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    n = max(len(one), len(other))
    a, b = (
        torch.tensor(values).expand(n) if len(values) == 1 else torch.tensor(values)
        for values in (one, other)
    )
    return len(a) == len(b) and bool(torch.allclose(a, b, atol=0.02 * float(b.abs().max() + 1e-3)))


def _listed(values: Sequence[float], wide: int) -> str:
    given = _wide(values, wide)
    return str([round(v, 6) for v in (given if len(given) == wide else tuple(given) * wide)])
