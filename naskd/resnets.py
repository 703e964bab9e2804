"""Published ResNets as architectures, so that a search space can simplify a teacher of torchvision or timm.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, arXiv 1512.03385, table 1; the wide ones:
Zagoruyko, Komodakis: Wide residual networks. BMVC 2016, arXiv 1605.07146.
Differs: a bottleneck's stride is on its 3x3 convolution, as in torchvision and timm.
"""

from typing import Literal

from naskd.spec.design import ArchitectureSpec, StageSpec
from naskd.spec.errors import InputError, UnknownNameError
from naskd.spec.registry import nearest

_FIRST_WIDTH = {"basic": 64, "bottleneck": 256}

_PUBLISHED: dict[str, tuple[str, tuple[int, int, int, int], float]] = {
    "resnet18": ("basic", (2, 2, 2, 2), StageSpec.expansion),
    "resnet34": ("basic", (3, 4, 6, 3), StageSpec.expansion),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 0.25),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 0.25),
    "resnet152": ("bottleneck", (3, 8, 36, 3), 0.25),
    "wide_resnet50_2": ("bottleneck", (3, 4, 6, 3), 0.5),
    "wide_resnet101_2": ("bottleneck", (3, 4, 23, 3), 0.5),
}
"""Block, depths, and what share of a block's channels its hidden ones are."""


def resnet_like(name: str) -> ArchitectureSpec:
    """The architecture of a published ResNet, of which students are simplified versions.

    It has the layers of torchvision's and timm's network of that name, so that students can begin with its weights: a
    7x7 stem of stride 2, max-pooling and four stages. For small images, ``dataclasses.replace(found, stem_stride=1,
    stem_pool=False)`` keeps the filters and looks at finer maps.

    Args:
        name: ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``resnet152``, ``wide_resnet50_2`` or
            ``wide_resnet101_2``.

    Raises:
        InputError: The family ``cnn`` cannot be that network.
        UnknownNameError: No such network is known.
    """
    if name.startswith(("resnext", "seresne", "resnest", "regnet")):
        raise InputError(
            f"{name!r} has layers that the family 'cnn' does not have (grouped convolutions or gates); allowed: "
            f"{', '.join(_PUBLISHED)}"
        )
    if name not in _PUBLISHED:
        raise UnknownNameError(
            f"no ResNet {name!r} is known; known: {', '.join(_PUBLISHED)}{nearest(name, _PUBLISHED)}"
        )
    block, depths, expansion = _PUBLISHED[name]
    strides: tuple[Literal[1, 2], ...] = (1, 2, 2, 2)
    stages = tuple(
        StageSpec(block, depth, _FIRST_WIDTH[block] * 2**number, expansion=expansion, stride=stride)
        for number, (depth, stride) in enumerate(zip(depths, strides, strict=True))
    )
    return ArchitectureSpec(stages, stem_width=64, stem_kernel=7, stem_stride=2, stem_pool=True)
