"""The torch-free description of a block."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BlockCard:
    """What a block is and which fields of a stage mean anything to it.

    Args:
        name: Name in ``StageSpec.block``.
        title: The field's name of the block.
        paper: Authors, title, venue, year, arXiv number.
        implementation: ``"module:Class"`` of the :class:`~naskd.networks.block.Block`, or the class.
        uses_expansion: Whether ``StageSpec.expansion`` changes the block; where not, a space can set it to
            1.0, so that equal networks have equal designs.
        uses_squeeze_excitation: Whether ``StageSpec.squeeze_excitation`` changes the block.
    """

    name: str
    title: str
    paper: str
    implementation: str | type[Any]
    uses_expansion: bool
    uses_squeeze_excitation: bool
