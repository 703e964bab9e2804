"""The space of a first study: how deep students are by the size of the images, how wide by a target of MACs."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from naskd.networks.student import design_cost
from naskd.report.units import count
from naskd.spaces import BlockChoice, StageChoice, StemStride, Stride, suggest_architecture
from naskd.spec.design import ArchitectureSpec
from naskd.spec.errors import InputError
from naskd.spec.sizes import Size, sides

DRAWS = 300
TOPS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Widths of a first stage at most that are tried, until the space reaches the target."""
BLOCKS = (
    BlockChoice("basic"),
    BlockChoice("bottleneck", expansions=(0.25, 0.5)),
    BlockChoice("inverted_residual", expansions=(2.0, 4.0), squeeze_excitation=True),
    BlockChoice("depthwise_separable"),
)


@dataclass(frozen=True)
class Shape:
    """How deep networks are, by the side of the images."""

    n_stages: int
    min_stages: int
    stem_strides: tuple[StemStride, ...]
    why_stem: str
    depth: tuple[int, int]
    first_strides: tuple[Stride, ...] = (1, 2)
    other_strides: tuple[Stride, ...] = (2,)

    @staticmethod
    def of(side: int) -> "Shape":
        """Of images of this shorter side."""
        if side <= 16:
            return Shape(3, 1, (1, 2), "Of so few pixels the stem may keep all.", (1, 2), (1, 2), (1, 2))
        if side <= 48:
            return Shape(3, 3, (1, 2), "The stem may keep all pixels, or a quarter of them.", (1, 3))
        if side <= 128:
            return Shape(
                4, 4, (2, 4), "The stem reduces the images first: maps cost as much as their pixels.", (1, 3)
            )
        return Shape(
            4, 4, (4,), "The stem reduces the images by 4: maps cost as much as their pixels.", (1, 3)
        )


@dataclass(frozen=True)
class FirstSpace:
    """Widths that reach a target."""

    stages: tuple[StageChoice, ...]
    stem_width: tuple[int, int]
    least: int
    why: str
    middle: ArchitectureSpec
    """The design of middle size among random ones within the target."""


def space_for(shape: Shape, channels: int, n_classes: int, size: Size, target: int) -> FirstSpace:
    """The narrowest space of which a fifth of the designs has more than half of the target.

    Raises:
        InputError: Hardly any design of the narrowest one is within the target.
    """
    for top in TOPS:
        multiple = 4 if top < 32 else 8
        stages = tuple(
            StageChoice(
                width=(max(4, top * 2**i // 8 // multiple * multiple or multiple), top * 2**i),
                depth=shape.depth,
                strides=shape.first_strides if i == 0 else shape.other_strides,
                multiple=multiple,
            )
            for i in range(shape.n_stages)
        )
        stem = (4, max(8, top))
        designs = random_designs(stages, stem, shape, channels, n_classes, size)
        macs = [of for _, of in designs]
        if macs[len(macs) // 10] > target and top == TOPS[0]:
            height, width = sides(size)
            raise InputError(
                f"a target of {count(target)}MACs is too small for images of {width}x{height}: the smallest of "
                f"{len(macs)} students has {count(macs[0])}MACs; give at least {count(macs[len(macs) // 2])}MACs"
            )
        if sum(m > target / 2 for m in macs) >= len(macs) / 5:
            break
    within = sum(m <= target for m in macs)
    return FirstSpace(
        stages,
        stem,
        macs[len(macs) // 100],
        f"Of {len(macs)} random designs {within} are within the limit, and a fifth has more than half of it.",
        designs[within // 2][0],
    )


def random_designs(
    stages: Sequence[StageChoice],
    stem: tuple[int, int],
    shape: Shape,
    channels: int,
    n_classes: int,
    size: Size,
) -> list[tuple[ArchitectureSpec, int]]:
    """Random designs with their MACs, the smallest first."""
    trial = RandomTrial(0)
    designs = (
        suggest_architecture(
            trial,
            stages,
            min_stages=shape.min_stages,
            blocks=BLOCKS,
            kernels=(3, 5),
            stem_width=stem,
            stem_strides=shape.stem_strides,
        )
        for _ in range(DRAWS)
    )
    priced = ((design, design_cost(design, channels, n_classes, size).macs) for design in designs)
    return sorted(priced, key=lambda one: one[1])


class RandomTrial:
    """Values for a space; see :class:`~naskd.suggesting.Trial`."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number in [low, high]."""
        if log:
            return min(high, max(low, round(math.exp(self._random.uniform(math.log(low), math.log(high))))))
        return self._random.randrange(low, high + 1, step)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""
        if log:
            return math.exp(self._random.uniform(math.log(low), math.log(high)))
        return self._random.uniform(low, high)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""
        return self._random.choice(choices)
