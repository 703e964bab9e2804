"""Singular vectors of a stage, with gradients that stay finite; what the losses on them share.

A stage as a matrix ``(H W, C)`` has its strongest directions in the space of channels: its first right singular
vectors. They are eigenvectors of a Gram matrix, of channels or, where there are fewer of them, of places.

Cost: one eigendecomposition in float64 a sample and a stage, of n x n with n = min(H W, C); LAPACK takes the batch one
by one. :func:`singular_vectors` with its gradient, B = 64, k = 1, 16x16 places, took 43 ms (40 to 90) at C = 64 and 215
ms (150 to 293) at C = 128; 128 channels at 8x8 and 4x4 places, where the other Gram matrix is the smaller one, 37 (35
to 47) and 12 (5 to 15). CPU time on one thread of 2 shared cores, 2026-11-25, median of 7. In float32 the decomposition
takes 0.5 to 0.8 of the time, and directions weaker than 3e-4 of the strongest drown in rounding. On a GPU, torch waits
for the device at each decomposition, to see whether it converged.

Memory: three (B, n, n) in float64, 8 MiB each at B = 64 and n = 128.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from naskd.knowledge.base import Summary
from naskd.knowledge.precision import unit, widened
from naskd.knowledge.relation.flow import FlowLoss
from naskd.nn.taps import Taps, as_map

KEPT = 8
"""Singular vectors that are kept of a teacher: as many as any loss may ask for, so that they are the same for all."""

_SHORTEST = 1e-12
_CLOSEST = 1e-4  # gap of eigenvalues, relative to the largest, below which the gradient is held back
_WEAKEST = 1e-14  # eigenvalue of a matrix of norm 1 that is rounding


def singular_vectors(features: Tensor, k: int) -> Tensor:
    """``x_i = sigma_i / |sigma| v_i`` of the first k right singular vectors of each sample as ``(H W, C)``.

    Neither the scale of the features nor the order of the places matters. Where there are fewer than k directions, the
    others are 0, and so are all of a sample that is 0 everywhere (its norm below 1e-12).

    Differs: the gradient is the true one, to 1e-6, of a vector whose eigenvalue (``sigma_i^2``) is farther from all
    others than 3.2e-3 of the largest, and bounded for any spectrum. Singular value decompositions of torch, and
    public code with them, give NaN for two dead channels.

    Args:
        features: ``(B, C, H, W)``.
        k: At least 1.

    Returns:
        ``(B, C, k)`` of norm 1 over C and k; computed in float64, in float32 at least. The signs of the k vectors are
        arbitrary. NaN for a sample that is not finite.
    """
    wide = widened(features)
    rows = wide.double().flatten(2)
    # The scale cancels in the result, so that it may count as constant; all thresholds are then relative to it.
    norm = torch.linalg.vector_norm(rows.detach(), dim=(1, 2), keepdim=True)
    rows = rows / norm.clamp_min(_SHORTEST) * (norm > _SHORTEST)
    # LAPACK raises where there is no decomposition, and says nothing of why: the loss is to say it.
    finite = rows.isfinite().all(dim=(1, 2), keepdim=True)
    rows = torch.where(finite, rows, 0.0)
    channels, places = rows.shape[1:]
    n = min(channels, places, k)
    if channels <= places:
        values, vectors = _left(rows, n)
        # sigma, without its infinite slope at 0
        scaled = vectors * (values / (values.clamp_min(0) + _WEAKEST).sqrt())[:, None]
    else:
        _, other = _left(rows.mT, n)
        scaled = rows @ other
    found = unit(scaled.flatten(1), dim=1).view_as(scaled)
    found = torch.where(finite, found, torch.nan)
    return F.pad(found, (0, k - n)).to(wide.dtype)


def aligned(student: Tensor, teacher: Tensor) -> Tensor:
    """The student's vectors, each with the sign with which it is nearer to the teacher's.

    Args:
        student: ``(B, C, k)``.
        teacher: ``(B, C, k)``.

    Returns:
        ``(B, C, k)``; unchanged where the dot product is 0.
    """
    return student * _sign((student.detach() * teacher.detach()).sum(dim=1, keepdim=True))


def signed(vectors: Tensor) -> Tensor:
    """``(B, C, k)`` with signs that do not depend on the decomposition: the component of largest size is positive."""
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    return vectors * _sign(vectors.gather(1, largest))


def leading(vectors: Tensor, k: int) -> Tensor:
    """The first k of more vectors, ``(B, C, k')`` to ``(B, C, k)``, as :func:`singular_vectors` gives them for k."""
    found = vectors[..., :k]
    return unit(found.flatten(1), dim=1).view(found.shape)


def _sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def _left(matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, vectors = _LeftSingularVectors.apply(matrix, k)
    return values, vectors


class _LeftSingularVectors(torch.autograd.Function):
    """Of ``A``, ``(B, n, m)``: the k largest eigenvalues ``(B, k)`` of ``G = A A^T``, and their vectors ``(B, n, k)``.

    ``dv_j = sum_i v_i (v_i . dG v_j) / (lambda_j - lambda_i)``, where for a gap d the factor is ``d^3 / (d^4 + c^4)``
    with c a small share of the largest eigenvalue: 1 / d for gaps far above c, 0 for none, and never above 0.57 / c.
    The gradient of G has rank 2 k, so that (B, n, n) is not multiplied by A again.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
        values, vectors = values.flip(-1), vectors.flip(-1)
        ctx.save_for_backward(matrix, values, vectors)
        return values[:, :k].clone(), vectors[..., :k].clone()

    @staticmethod
    def backward(ctx: Any, by_values: Tensor, by_vectors: Tensor) -> tuple[Tensor, None]:
        matrix, values, vectors = ctx.saved_tensors
        k = by_values.shape[1]
        largest = values[:, :1, None].clamp_min(torch.finfo(values.dtype).tiny)
        gaps = (values[:, None, :k] - values[:, :, None]) / largest
        factors = gaps**3 / (gaps**4 + _CLOSEST**4) / largest
        first = vectors[..., :k]
        turned = vectors @ (vectors.mT @ by_vectors * factors) + first * by_values[:, None]
        return turned @ (first.mT @ matrix) + first @ (turned.mT @ matrix), None


class SingularLoss(FlowLoss):
    """A loss on the singular vectors of the stages.

    The summary is ``singular_<i>``, ``(B, C_t, 8)``, the first :data:`KEPT` singular vectors of the teacher's stage,
    each with its largest component positive.
    """

    def summarise(self, teacher: Taps) -> Summary:
        """Of each teacher stage of a flow."""
        return {
            f"singular_{t}": signed(singular_vectors(as_map(teacher.stages[t]).detach(), KEPT))
            for t in dict.fromkeys(self.teacher_stages)
        }

    def teacher_vectors(self, teacher: Summary, k: int) -> list[Tensor]:
        """The first k of each stage of the flows, ``(B, C_t, k)``."""
        return [leading(widened(teacher[f"singular_{t}"]), k) for t in self.teacher_stages]

    def student_vectors(self, student: Taps, teacher: list[Tensor]) -> list[Tensor]:
        """Of the student's stages, like the :meth:`teacher_vectors` that are given, and with their signs."""
        return [
            aligned(singular_vectors(own, other.shape[2]), other)
            for own, other in zip(self.adapted(student), teacher, strict=True)
        ]
