"""A user's block."""

from naskd.networks import BLOCKS, BlockCard
from naskd.networks.blocks.basic import Basic


class OfFile(Basic):
    """The basic block under another name."""


BLOCKS.register(BlockCard("of_file", "", "", OfFile, uses_expansion=False, uses_squeeze_excitation=False))
