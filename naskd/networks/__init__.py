"""Students and teachers: what is searched, and what it learns from.

One file per block and per family of students, its card registered here. The cards are torch-free, so that a search
space or a study check can turn away what cannot work without importing torch.
"""

from naskd.networks.card import BlockCard, FamilyCard
from naskd.spec.registry import Registry

_RESIDUAL = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, arXiv 1512.03385"

BLOCKS: Registry[BlockCard] = Registry("block")

BLOCKS.register(
    BlockCard(
        name="basic",
        title="basic residual block",
        paper=_RESIDUAL,
        implementation="naskd.networks.blocks.basic:Basic",
        uses_expansion=False,
        uses_squeeze_excitation=False,
        takes_weights=True,
        convolutions=2,
    )
)
BLOCKS.register(
    BlockCard(
        name="bottleneck",
        title="bottleneck residual block",
        paper=_RESIDUAL,
        implementation="naskd.networks.blocks.bottleneck:Bottleneck",
        uses_expansion=True,
        uses_squeeze_excitation=False,
        takes_weights=True,
        convolutions=1,
    )
)
BLOCKS.register(
    BlockCard(
        name="inverted_residual",
        title="inverted residual with linear bottleneck",
        paper=(
            "Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks. "
            "CVPR 2018, arXiv 1801.04381"
        ),
        implementation="naskd.networks.blocks.inverted_residual:InvertedResidual",
        uses_expansion=True,
        uses_squeeze_excitation=True,
        takes_weights=True,
        convolutions=1,
    )
)
BLOCKS.register(
    BlockCard(
        name="depthwise_separable",
        title="depthwise separable convolution",
        paper=(
            "Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision "
            "Applications. 2017, arXiv 1704.04861"
        ),
        implementation="naskd.networks.blocks.depthwise_separable:DepthwiseSeparable",
        uses_expansion=False,
        uses_squeeze_excitation=False,
        takes_weights=True,
        convolutions=1,
    )
)

FAMILIES: Registry[FamilyCard] = Registry("network family")
"""Of the students; the first one is what an architecture means that names none."""

FAMILIES.register(
    FamilyCard(
        name="cnn",
        title="convolutional network: a stem, stages of blocks, global average pooling, a linear classifier",
        paper=_RESIDUAL,
        implementation="naskd.networks.cnn:ConvStudent",
        uses_stages=True,
        uses_stem=True,
        uses_bits=True,
        starts="naskd.networks.simplified:problems",
    )
)

__all__ = ["BLOCKS", "FAMILIES", "BlockCard", "FamilyCard"]
