"""Parts of a network that train as several branches and leave as one layer.

Ding, Zhang, Ma, Han, Ding, Sun: RepVGG: Making VGG-style ConvNets Great Again. CVPR 2021, arXiv 2101.03697, section
3.3: convolutions and BatchNorms in evaluation mode are linear, so that a sum of them is one convolution with a bias.
"""

import copy

from torch import nn

from naskd.spec.errors import undefined


class Merging(nn.Module):
    """A part that can be merged; it computes the same afterwards, in evaluation mode, within rounding."""

    merged: bool = False
    """Whether it has been."""

    def merge(self) -> None:
        """Become one layer, in place; not to be trained as before. A no-op where that has happened."""
        raise undefined(self, "merge")


def merging_parts(network: nn.Module) -> list[Merging]:
    """Those of a network that can be merged, whether they are or not."""
    return [part for part in network.modules() if isinstance(part, Merging)]


def is_merged(network: nn.Module) -> bool:
    """Whether it has parts that have been merged."""
    return any(part.merged for part in merging_parts(network))


def merge(network: nn.Module) -> None:
    """Merge all parts of a network, in place."""
    for part in merging_parts(network):
        part.merge()


def merged(network: nn.Module) -> nn.Module:
    """What leaves in place of a network: a copy whose parts are merged, or itself where there is nothing to merge."""
    if all(part.merged for part in merging_parts(network)):
        return network
    made = copy.deepcopy(network)
    merge(made)
    return made
