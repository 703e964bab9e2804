"""Which operators multiply matrices and vectors, and how often: those that torch counts, and those that it leaves out.

torch counts products of matrices with matrices alone. A vector that scores tokens, say, would cost nothing.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten

Shape = tuple[int, ...]


def _mv(matrix: Shape, vector: Shape, **_: Any) -> int:
    return 2 * prod(matrix)


def _addmv(added: Shape, matrix: Shape, vector: Shape, **_: Any) -> int:
    return 2 * prod(matrix)


def _dot(one: Shape, other: Shape, **_: Any) -> int:
    return 2 * prod(one)


def _addbmm(added: Shape, one: Shape, other: Shape, **_: Any) -> int:
    return 2 * prod(one) * other[2]


def _trilinear(
    one: Shape,
    two: Shape,
    three: Shape,
    more_of_one: Shape,
    more_of_two: Shape,
    more_of_three: Shape,
    *_: Any,
    **__: Any,
) -> int:
    """Of numbers at all places of the three together, each of which gets dimensions that it does not have."""
    given = zip((one, two, three), (more_of_one, more_of_two, more_of_three), strict=True)
    sizes = [_with_dimensions(shape, more) for shape, more in given]
    largest: list[int] = [max(along) for along in zip(*sizes, strict=True)]
    return 2 * prod(largest)


def _with_dimensions(shape: Shape, more: Shape) -> list[int]:
    found = list(shape)
    for dimension in sorted(more):
        found.insert(dimension, 1)
    return found


LEFT_OUT: Mapping[Any, Callable[..., int]] = {
    _aten.mv: _mv,
    _aten.addmv: _addmv,
    _aten.dot: _dot,
    _aten.addbmm: _addbmm,
    _aten._trilinear: _trilinear,
}
"""Floating point operations from the shapes of the arguments, as torch's ``FlopCounterMode`` takes further formulas."""


def macs_of(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int | None:
    """Multiply-accumulates of a call of an operator; None of one that multiplies nothing, as far as anybody says.

    Args:
        packet: The operator, whatever its overload.
        args: Of the call.
        kwargs: Likewise.
        out: What it gave.
    """
    if (ours := LEFT_OUT.get(packet)) is not None:
        shapes = [tuple(arg.shape) if isinstance(arg, Tensor) else arg for arg in args]
        return ours(*shapes) // 2
    counted = flop_registry.get(packet)
    return None if counted is None else int(counted(*args, **kwargs, out_val=out)) // 2
