"""How many pixels of an image a place of a map sees, in closed form and without torch.

Araujo, Norris, Sim: Computing receptive fields of convolutional neural networks. Distill, 2019,
doi:10.23915/distill.00021, eq. 2: a layer of kernel k adds ``k - 1`` steps of the map that it reads. Squeeze-excitation
sees the whole map, and is left out, as is usual.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from naskd.networks import BLOCKS
from naskd.spec.design import CONVOLUTION, ArchitectureSpec
from naskd.spec.errors import InputError

_POOLS = {"average_pooling": 2, "max_pooling": 3}
"""Sides of what halves a map before a stage."""


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
        InputError: A block does not say of how many convolutions it is made, or the student resizes its images.
    """
    return tuple(_fields(spec))


def _fields(spec: ArchitectureSpec) -> Iterator[Field]:
    if spec.resolution is not None:
        raise InputError(
            "the receptive field of a student that resizes its images is not known in their pixels"
        )
    kernel = spec.stem_kernel if spec.stem == CONVOLUTION else spec.stem_stride
    side, step = int(kernel), int(spec.stem_stride)
    if spec.stem_pool:
        side, step = side + 2 * step, 2 * step
    for stage in spec.stages:
        convolutions = BLOCKS[stage.block].convolutions
        if convolutions is None:
            raise InputError(
                f"the receptive field of blocks {stage.block!r} is not known: their card does not say of how many "
                "convolutions they are made"
            )
        if stage.stride > 1 and stage.downsampling in _POOLS:
            side += (_POOLS[stage.downsampling] - 1) * step
            step *= stage.stride
            side += (stage.kernel - 1) * step
        else:
            side += (stage.kernel - 1) * step  # of the first, which carries the stride
            step *= stage.stride
        side += (stage.kernel - 1) * step * (convolutions * stage.depth - 1)
        yield Field(side, step)
