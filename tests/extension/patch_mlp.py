"""A family of students in a user's file: images are cut into patches, and each patch is a token.

Named in a study's ``modules``; a space writes ``ArchitectureSpec(family="patch_mlp", options=(("depth", 3),))``.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from naskd.networks import FAMILIES, FamilyCard
from naskd.networks.student import Student
from naskd.nn.taps import Tap, Taps
from naskd.spec.design import ArchitectureSpec
from naskd.spec.option import Option


class PatchMlpCard(FamilyCard):
    """Each layer is a stage."""

    def n_stages(self, architecture: ArchitectureSpec) -> int:
        """As deep as it is."""
        return int(self.option(architecture, "depth"))


CARD = FAMILIES.register(
    PatchMlpCard(
        name="patch_mlp",
        title="perceptrons on patches and on their mean",
        paper="after Tolstikhin et al.: MLP-Mixer. NeurIPS 2021, arXiv 2105.01601",
        implementation=f"{__name__}:PatchMlp",
        options={
            "depth": Option(2, "layers", 1, 32),
            "width": Option(16, "features of a token", 1, 4096),
            "patch": Option(2, "side of a patch", 1, 64),
        },
    )
)


class Layer(nn.Module):
    """``(B, N, D)`` to the same: what a token says and what all say together, added to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.own, self.common, self.out = (nn.Linear(width, width) for _ in range(3))

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        x = self.norm(tokens)
        together = self.common(x.mean(dim=1, keepdim=True))
        output: Tensor = tokens + self.out(F.gelu(self.own(x) + together))
        return output


class PatchMlp(Student):
    """Patches, layers, the mean of the tokens, and a linear classifier."""

    def __init__(
        self,
        spec: ArchitectureSpec,
        in_channels: int,
        n_classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(spec, in_channels, n_classes, mean, std)
        depth, width, patch = (int(CARD.option(spec, name)) for name in ("depth", "width", "patch"))
        self.patches = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.layers = nn.ModuleList(Layer(width) for _ in range(depth))
        self.head = nn.Linear(width, n_classes)

    def taps(self, images: Tensor) -> Taps:
        """The tokens after each layer."""
        patches = self.patches(self.normalised(images))
        grid = patches.shape[2], patches.shape[3]
        tokens, stages = patches.flatten(2).transpose(1, 2), []
        for number, layer in enumerate(self.layers, start=1):
            tokens = layer(tokens)
            stages.append(Tap(tokens, "tokens", number / len(self.layers), grid))
        pooled = tokens.mean(dim=1)
        return Taps(self.head(pooled), tuple(stages), tuple(stages), pooled)
