"""The torch-free description of the family ``vit``."""

from dataclasses import replace

from naskd.networks.card import FamilyCard
from naskd.spec.design import ArchitectureSpec
from naskd.spec.option import Option, canonical_options

OPTIONS = {
    "patch": Option(4, "side of a patch in pixels; each is a token", low=1, high=256),
    "depth": Option(6, "transformer layers", low=1, high=1000),
    "width": Option(96, "features of a token, a multiple of 4 and of the heads", low=4, high=65536),
    "heads": Option(3, "heads of the attention", low=1, high=1024),
    "mlp_ratio": Option(4.0, "hidden features of the MLP as a multiple of the width", above=0, high=1000),
    "stages": Option(
        3, "groups of layers that are shown to losses; at most as many as layers", low=1, high=100
    ),
}


class VitCard(FamilyCard):
    """Settings that depend on each other."""

    def n_stages(self, architecture: ArchitectureSpec) -> int:
        """As many as are asked for, but no more than layers."""
        return min(int(self.option(architecture, "stages")), int(self.option(architecture, "depth")))

    def canonical(self, architecture: ArchitectureSpec) -> ArchitectureSpec:
        """See :class:`~naskd.networks.card.FamilyCard`; more stages than layers are as many as layers."""
        plain = super().canonical(architecture)
        options = {**dict(plain.options), "stages": self.n_stages(plain)}
        return replace(plain, options=canonical_options(self.options, tuple(sorted(options.items()))))

    def widened(self, architecture: ArchitectureSpec, factor: float) -> ArchitectureSpec:
        """The same network with `factor` times the heads, each as wide as before.

        Rounded, at least 1, and up to where the width is a multiple of 4.
        """
        if factor == 1:
            return architecture
        width, heads = int(self.option(architecture, "width")), int(self.option(architecture, "heads"))
        wider, each = max(1, round(heads * factor)), width // heads
        while each * wider % 4:
            wider += 1
        options = {**dict(architecture.options), "heads": wider, "width": each * wider}
        return replace(architecture, options=tuple(sorted(options.items())))

    def problems(self, architecture: ArchitectureSpec) -> list[str]:
        """A width that cannot be shared by the heads, or has no sines and cosines of both sides, too."""
        found = super().problems(architecture)
        if found:
            return found
        width, heads = int(self.option(architecture, "width")), int(self.option(architecture, "heads"))
        if width % 4:
            found.append(
                f"option 'width' of network family {self.name!r} is {width}; allowed: multiples of 4, since positions "
                f"are told by sines and cosines of rows and columns; {width - width % 4 or 4} or {width + -width % 4}"
            )
        if width % heads:
            found.append(
                f"options of network family {self.name!r}: width {width} cannot be shared by {heads} heads; "
                f"allowed: a multiple of {heads}"
            )
        return found
