"""Dominance, fronts and hypervolume, on plain numbers.

A point dominates another when it is at least as good in every objective and better in one (Zitzler & Thiele,
"Multiobjective evolutionary algorithms: a comparative case study", IEEE TEC 3(4), 1999, where the
hypervolume is
defined too). Here `N` is the number of points, `M` the number of objectives.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Axis(Protocol):
    """What this module asks of an objective; :class:`~naskd.spec.objectives.Objective` is one."""

    @property
    def name(self) -> str:
        """For messages and reference points."""

    @property
    def scale(self) -> str:
        """``linear``, or ``log`` for values that must be positive."""

    @property
    def maximise(self) -> bool:
        """Whether more is better."""


def non_dominated(points: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Which points no other point dominates.

    Equal points do not dominate each other, so all copies of a non-dominated point are kept. A point with a
    NaN is never on the front and dominates nothing; infinities are ordinary values.

    Args:
        points: ``(N, M)``; an empty sequence is no points.
        maximise: For each objective, whether more is better; ``M`` entries.

    Returns:
        Mask ``(N,)``.

    Raises:
        ValueError: The shapes do not agree.
    """
    costs = _as_costs(points, maximise)
    mask = np.zeros(len(costs), dtype=bool)
    valid = ~np.isnan(costs).any(axis=1)
    mask[valid] = _minimal(costs[valid])
    return mask


def hypervolume(points: ArrayLike, reference_point: ArrayLike, maximise: Sequence[bool]) -> float:
    """The volume that the points dominate and the reference point bounds.

    Points that are not better than the reference point in every objective contribute nothing, nor do points
    with a NaN. One and two objectives are ours; three and more are moocore's (Fonseca, Paquete &
    López-Ibáñez, "An improved dimension-sweep algorithm for the hypervolume indicator", CEC 2006).

    Args:
        points: ``(N, M)``; an empty sequence has volume 0.
        reference_point: ``(M,)``, finite.
        maximise: For each objective, whether more is better.

    Returns:
        The volume, at least 0.

    Raises:
        ValueError: The shapes do not agree, or the reference point is not finite.
    """
    reference = np.asarray(reference_point, dtype=np.float64)
    if reference.shape != (len(maximise),) or not np.isfinite(reference).all():
        raise ValueError(
            f"reference_point must be {len(maximise)} finite numbers, as maximise has entries, "
            f"got {reference_point!r}"
        )
    reference = _as_costs(reference[None], maximise)[0]
    costs = _as_costs(points, maximise)
    costs = costs[(costs < reference).all(axis=1)]
    if not len(costs):
        return 0.0
    if costs.shape[1] == 1:
        return float(reference[0] - costs.min())
    if costs.shape[1] == 2:
        return _sweep(costs, reference)
    import moocore  # half a second that only studies of three objectives pay

    return float(moocore.hypervolume(costs, ref=reference))


def objective_space(values: ArrayLike, axes: Sequence[Axis]) -> NDArray[np.float64]:
    """The space in which hypervolume is measured: on each axis the value as it is, or its decimal logarithm.

    Costs of students span orders of magnitude; without the logarithm the volume would be that of the most
    expensive student alone.

    Args:
        values: ``(..., M)``: points, or one reference point.
        axes: The ``M`` objectives.

    Returns:
        Array of the same shape. NaN stays NaN.

    Raises:
        ValueError: The shapes do not agree, or a value on a logarithmic axis is not positive.
    """
    space = np.array(values, dtype=np.float64)
    if space.size == 0:
        return space.reshape(-1, len(axes))
    if space.shape[-1] != len(axes):
        names = ", ".join(axis.name for axis in axes)
        raise ValueError(f"values must end in {len(axes)} objectives ({names}), got shape {space.shape}")
    for index, axis in enumerate(axes):
        if axis.scale == "linear":
            continue
        values = space[..., index]
        if (values <= 0).any():
            raise ValueError(f"{axis.name} must be positive to have a logarithm, got {values.min():g}")
        space[..., index] = np.log10(values)
    return space


def front_mask(points: ArrayLike, axes: Sequence[Axis]) -> NDArray[np.bool_]:
    """Which points no other point dominates, in :func:`objective_space`.

    Args:
        points: ``(N, M)``, raw values.
        axes: The ``M`` objectives.

    Returns:
        Mask ``(N,)``; see :func:`non_dominated`.
    """
    return non_dominated(objective_space(points, axes), [axis.maximise for axis in axes])


def front_volume(points: ArrayLike, axes: Sequence[Axis], reference_point: Mapping[str, float]) -> float:
    """The :func:`hypervolume` of points in :func:`objective_space`.

    Args:
        points: ``(N, M)``, raw values.
        axes: The ``M`` objectives.
        reference_point: A raw value for each objective, by name.
    """
    reference = objective_space([reference_point[axis.name] for axis in axes], axes)
    return hypervolume(objective_space(points, axes), reference, [axis.maximise for axis in axes])


def _as_costs(points: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.float64]:
    """A copy of `points` in which less is better, ``(N, M)``."""
    signs = np.where(np.asarray(maximise, dtype=bool), -1.0, 1.0)
    if len(signs) == 0:
        raise ValueError("maximise is empty; give one entry for each objective")
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        array = array.reshape(-1, len(signs))
    if array.ndim != 2 or array.shape[1] != len(signs):
        raise ValueError(
            f"points must have shape (N, {len(signs)}), as maximise has entries, got {array.shape}"
        )
    return array * signs


def _minimal(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of the non-dominated rows of `costs`, which holds no NaN.

    In lexicographic order a row can only be dominated by an earlier one, and if by any, then by one on the
    front: so each distinct row is compared with the front so far, and never again.
    """
    rows, copies = np.unique(costs, axis=0, return_inverse=True)
    keep = np.zeros(len(rows), dtype=bool)
    front = np.empty_like(rows)
    size = 0
    for index, row in enumerate(rows):
        if not (front[:size] <= row).all(axis=1).any():
            keep[index] = True
            front[size] = row
            size += 1
    return np.asarray(keep[copies.reshape(-1)], dtype=np.bool_)


def _sweep(costs: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Area between two-dimensional `costs`, all below `reference`, and `reference`."""
    costs = costs[np.lexsort((costs[:, 1], costs[:, 0]))]
    # Left to right, the staircase at x is the least y so far; each step reaches to the next point's x.
    height = reference[1] - np.minimum.accumulate(costs[:, 1])
    width = np.diff(costs[:, 0], append=reference[0])
    return float(height @ width)
