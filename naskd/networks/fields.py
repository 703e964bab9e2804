"""How many pixels of an image a place of a map sees, in closed form and without torch.

Araujo, Norris, Sim: Computing receptive fields of convolutional neural networks. Distill, 2019,
doi:10.23915/distill.00021, eq. 2: a layer of kernel k adds ``k - 1`` steps of the map that it reads. Squeeze-excitation
sees the whole map, and is left out, as is usual.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from naskd.networks import BLOCKS
from naskd.spec.design import ArchitectureSpec
from naskd.spec.errors import InputError


@dataclass(frozen=True)
class Field:
    """What a place of a map sees.

    Args:
        side: Of the square of pixels that it depends on.
        step: Pixels from one place to the next.
    """

    side: int
    step: int


def receptive_fields(spec: ArchitectureSpec) -> tuple[Field, ...]:
    """Of the map after each stage of a network of the family ``cnn``.

    Raises:
        InputError: A block does not say of how many convolutions it is made.
    """
    return tuple(_fields(spec))


def _fields(spec: ArchitectureSpec) -> Iterator[Field]:
    side, step = int(spec.stem_kernel), int(spec.stem_stride)
    if spec.stem_pool:
        side, step = side + 2 * step, 2 * step
    for stage in spec.stages:
        convolutions = BLOCKS[stage.block].convolutions
        if convolutions is None:
            raise InputError(
                f"the receptive field of blocks {stage.block!r} is not known: their card does not say of how many "
                "convolutions they are made"
            )
        side += (stage.kernel - 1) * step  # of the first, which carries the stride
        step *= stage.stride
        side += (stage.kernel - 1) * step * (convolutions * stage.depth - 1)
        yield Field(side, step)
