"""The family ``vit``: a transformer of patches of the image, and what it costs in closed form.

Dosovitskiy et al.: An Image is Worth 16x16 Words. ICLR 2021, arXiv 2010.11929, eq. 1 to 4 and fig. 1.
Differs: no class token, since losses on maps have no place for it: the classifier reads the mean of all tokens, and
positions are fixed sines and cosines, both as Beyer, Zhai, Kolesnikov: Better plain ViT baselines for ImageNet-1k.
2022, arXiv 2205.01580. So one network takes images of any size. Queries, keys and values have no bias. No dropout.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from naskd.networks import FAMILIES
from naskd.networks.layers import (
    EPSILON,
    linear_cost,
    norm_cost,
    patches,
    patches_cost,
    scaled_width,
    strided,
    total,
)
from naskd.networks.student import Student
from naskd.networks.transformer import TransformerLayer, position_embedding
from naskd.nn.taps import Tap, Taps, TapShape, TapShapes
from naskd.spec.design import ArchitectureSpec, Cost
from naskd.spec.sizes import Size, sides

_DEVIATION = 0.02
"""Of the weights when a training begins, as in Touvron et al., ICML 2021, arXiv 2012.12877 (DeiT)."""


class VisionTransformer(Student):
    """Patches, positions, transformer layers in groups, LayerNorm, the mean of the tokens, a linear classifier.

    A stage is a group of layers of nearly equal number. Sides that are no multiples of the patch are filled up with
    zeros on the right and below.
    """

    def __init__(
        self,
        spec: ArchitectureSpec,
        in_channels: int,
        n_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(spec, in_channels, n_classes, mean, std)
        patch, width, hidden = _sizes(spec)
        heads = int(FAMILIES[spec.family].option(spec, "heads"))
        self.patches = nn.Sequential(*patches(in_channels, width, patch))
        self.stages = nn.ModuleList(
            nn.Sequential(*(TransformerLayer(width, heads, hidden, nn.GELU()) for _ in range(depth)))
            for depth in stage_depths(spec)
        )
        self.norm = nn.LayerNorm(width, EPSILON)
        self.head = nn.Linear(width, n_classes)
        if not next(self.parameters()).is_meta:
            self._initialise()

    def _initialise(self) -> None:
        for layer in self.stages.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=_DEVIATION)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def taps(self, images: Tensor) -> Taps:
        """Logits, what each group of layers hands on as a map, and the mean that the classifier reads.

        Layers end in a sum, so that stages and pre-activations are the same. The position of a stage is the share of
        layers up to its end.
        """
        x = self.patches(self.normalised(images)).permute(0, 2, 3, 1)
        x = x + position_embedding(x.shape[1], x.shape[2], x.shape[3], x)
        found, done, depth = [], 0, sum(stage_depths(self.spec))
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            x, done = stage(x), done + len(stage)
            found.append(Tap(x.permute(0, 3, 1, 2), "map", done / depth))
        pooled = self.norm(x).mean((1, 2))
        return Taps(self.head(pooled), tuple(found), tuple(found), pooled)

    @classmethod
    def cost(cls, spec: ArchitectureSpec, in_channels: int, n_classes: int, resolution: Size) -> Cost:
        """In closed form; nothing is built."""
        patch, width, hidden = _sizes(spec)
        height, columns = (strided(side, patch) for side in sides(resolution))
        layer = TransformerLayer.cost(width, hidden, height, columns)
        return total(
            (
                Cost(macs=0, n_params=0, size_bytes=4 * 2 * in_channels),
                patches_cost(in_channels, width, patch, height, columns),
                *[layer] * sum(stage_depths(spec)),
                norm_cost(width),
                linear_cost(width, n_classes),
            )
        )

    @classmethod
    def shapes(cls, spec: ArchitectureSpec, n_classes: int, resolution: Size) -> TapShapes:
        """In closed form; nothing is built."""
        patch, width, _ = _sizes(spec)
        height, columns = (strided(side, patch) for side in sides(resolution))
        depths = stage_depths(spec)
        found = tuple(
            TapShape(width, (height, columns), "map", sum(depths[: i + 1]) / sum(depths))
            for i in range(len(depths))
        )
        return TapShapes(n_classes, found, found, width)


def _sizes(spec: ArchitectureSpec) -> tuple[int, int, int]:
    """Patch, width and hidden width of the MLP."""
    card = FAMILIES[spec.family]
    width = int(card.option(spec, "width"))
    return int(card.option(spec, "patch")), width, scaled_width(float(card.option(spec, "mlp_ratio")), width)


def stage_depths(spec: ArchitectureSpec) -> tuple[int, ...]:
    """Layers of each stage: as equal as they can be, the earlier ones not deeper than the later ones."""
    card = FAMILIES[spec.family]
    depth, n = int(card.option(spec, "depth")), card.n_stages(spec)
    ends = [i * depth // n for i in range(n + 1)]
    return tuple(after - before for before, after in pairwise(ends))
