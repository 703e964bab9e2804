"""Students and teachers: what is searched, and what it learns from.

One file per block and per family of students, its card registered here. The cards are torch-free, so that a search
space or a study check can turn away what cannot work without importing torch.
"""

from naskd.networks.card import BlockCard, FamilyCard
from naskd.networks.vit_card import OPTIONS, VitCard
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
        activation="relu",
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
        activation="relu",
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
        activation="relu6",
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
        activation="relu",
        convolutions=1,
    )
)

BLOCKS.register(
    BlockCard(
        name="fused_inverted_residual",
        title="fused inverted residual: expansion and depthwise convolution in one",
        paper="Tan, Le: EfficientNetV2: Smaller Models and Faster Training. ICML 2021, arXiv 2104.00298",
        implementation="naskd.networks.blocks.fused_inverted_residual:FusedInvertedResidual",
        uses_expansion=True,
        uses_squeeze_excitation=True,
        takes_weights=True,
        activation="silu",
        convolutions=1,
    )
)
BLOCKS.register(
    BlockCard(
        name="ghost",
        title="ghost bottleneck: half of the channels are cheap filters of the others",
        paper=(
            "Han, Wang, Tian, Guo, Xu, Xu: GhostNet: More Features from Cheap Operations. "
            "CVPR 2020, arXiv 1911.11907"
        ),
        implementation="naskd.networks.blocks.ghost:Ghost",
        uses_expansion=True,
        uses_squeeze_excitation=True,
        activation="relu",
    )
)
BLOCKS.register(
    BlockCard(
        name="shuffle_v2",
        title="ShuffleNet V2 unit: half of the channels are passed on",
        paper=(
            "Ma, Zhang, Zheng, Sun: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design. "
            "ECCV 2018, arXiv 1807.11164"
        ),
        implementation="naskd.networks.blocks.shuffle_v2:ShuffleV2",
        uses_expansion=False,
        uses_squeeze_excitation=False,
        activation="relu",
        convolutions=1,
    )
)
BLOCKS.register(
    BlockCard(
        name="mixed_kernel",
        title="inverted residual with depthwise kernels of several sides",
        paper="Tan, Le: MixConv: Mixed Depthwise Convolutional Kernels. BMVC 2019, arXiv 1907.09595",
        implementation="naskd.networks.blocks.mixed_kernel:MixedKernel",
        uses_expansion=True,
        uses_squeeze_excitation=True,
        activation="relu",
        convolutions=1,
    )
)
BLOCKS.register(
    BlockCard(
        name="rep_vgg",
        title="three branches in training, one convolution where it leaves",
        paper=(
            "Ding, Zhang, Ma, Han, Ding, Sun: RepVGG: Making VGG-style ConvNets Great Again. "
            "CVPR 2021, arXiv 2101.03697"
        ),
        implementation="naskd.networks.blocks.rep_vgg:RepVGG",
        uses_expansion=False,
        uses_squeeze_excitation=False,
        activation="relu",
        convolutions=1,
    )
)
BLOCKS.register(
    BlockCard(
        name="convnext",
        title="ConvNeXt block",
        paper=(
            "Liu, Mao, Wu, Feichtenhofer, Darrell, Xie: A ConvNet for the 2020s. CVPR 2022, arXiv 2201.03545"
        ),
        implementation="naskd.networks.blocks.convnext:ConvNeXt",
        uses_expansion=True,
        uses_squeeze_excitation=False,
        activation="gelu",
    )
)
BLOCKS.register(
    BlockCard(
        name="self_attention",
        title="MobileViT block: convolution and self-attention",
        paper=(
            "Mehta, Rastegari: MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision Transformer. "
            "ICLR 2022, arXiv 2110.02178"
        ),
        implementation="naskd.networks.blocks.self_attention:SelfAttentionBlock",
        uses_expansion=True,
        uses_squeeze_excitation=False,
        activation="silu",
    )
)

FAMILIES: Registry[FamilyCard] = Registry("network family", "family")
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
FAMILIES.register(
    VitCard(
        name="vit",
        title="vision transformer: patches, layers of self-attention, the mean of the tokens, a linear classifier",
        paper=(
            "Dosovitskiy et al.: An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale. "
            "ICLR 2021, arXiv 2010.11929"
        ),
        implementation="naskd.networks.vit:VisionTransformer",
        options=OPTIONS,
    )
)

__all__ = ["BLOCKS", "FAMILIES", "BlockCard", "FamilyCard"]
