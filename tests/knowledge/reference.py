"""The losses once more, in float64 and plain loops, from the equations of the papers and not from our code.

Slow on purpose: every index of an equation is a loop, so that each line can be held against the paper.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    """Softmax of one vector."""
    e = np.exp(z - z.max())
    return e / e.sum()


def logits(student: Array, teacher: Array, temperature: float) -> float:
    """Hinton et al., 1503.02531: T^2 (1/B) sum_b KL(softmax(z_t/T) || softmax(z_s/T))."""
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        p_s, p_t = softmax(z_s / temperature), softmax(z_t / temperature)
        for k in range(len(z_s)):
            total += p_t[k] * (np.log(p_t[k]) - np.log(p_s[k]))
    return temperature**2 * total / len(student)


def pool(image: Array, height: int, width: int) -> Array:
    """Adaptive average pooling of one (H, W) image: rows floor(i H / h) to ceil((i + 1) H / h) - 1."""
    pooled = np.zeros((height, width))
    full_height, full_width = image.shape
    for i in range(height):
        for j in range(width):
            rows = range(i * full_height // height, -(-(i + 1) * full_height // height))
            columns = range(j * full_width // width, -(-(j + 1) * full_width // width))
            cell = [image[r, c] for r in rows for c in columns]
            pooled[i, j] = sum(cell) / len(cell)
    return pooled


def hint(student: Array, teacher: Array, weight: Array, bias: Array) -> float:
    """Romero et al., 1412.6550, eq. 3 as a mean: mean (W F_s + b - F_t)^2, on the smaller grid."""
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])
    errors = []
    for f_s, f_t in zip(student, teacher, strict=True):
        pooled_student = [pool(channel, height, width) for channel in f_s]
        for out in range(len(f_t)):
            target = pool(f_t[out], height, width)
            for i in range(height):
                for j in range(width):
                    mapped = bias[out]
                    for channel in range(len(f_s)):
                        mapped += weight[out, channel] * pooled_student[channel][i, j]
                    errors.append((mapped - target[i, j]) ** 2)
    return sum(errors) / len(errors)


def attention(student: Array, teacher: Array) -> float:
    """Zagoruyko & Komodakis, 1612.03928, eq. 2, squared and averaged; maps pooled to the smaller grid."""
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])

    def unit_map(features: Array) -> Array:
        summed = np.zeros(features.shape[1:])
        for channel in features:
            summed += channel**2
        q = pool(summed / len(features), height, width).reshape(-1)
        return q / np.sqrt(sum(v**2 for v in q))

    errors = []
    for f_s, f_t in zip(student, teacher, strict=True):
        q_s, q_t = unit_map(f_s), unit_map(f_t)
        errors += [(q_s[i] - q_t[i]) ** 2 for i in range(height * width)]
    return sum(errors) / len(errors)


def huber(x: float, y: float) -> float:
    """Park et al., eq. 6, with delta = 1."""
    gap = abs(x - y)
    return 0.5 * gap**2 if gap <= 1 else gap - 0.5


def rkd_distance(student: Array, teacher: Array) -> float:
    """Park et al., 1904.05068, eqs. 4, 5 and 7, averaged over all B^2 pairs."""

    def potentials(f: Array) -> Array:
        n = len(f)
        d = np.array(
            [
                [np.sqrt(sum((a - b) ** 2 for a, b in zip(f[i], f[j], strict=True))) for j in range(n)]
                for i in range(n)
            ]
        )
        distinct = [d[i, j] for i in range(n) for j in range(n) if i != j]
        return d / (sum(distinct) / len(distinct))

    psi_s, psi_t = potentials(student), potentials(teacher)
    n = len(student)
    return sum(huber(psi_s[i, j], psi_t[i, j]) for i in range(n) for j in range(n)) / n**2


def rkd_angle(student: Array, teacher: Array) -> float:
    """Park et al., eqs. 8 and 9: the angle at j of the triplet (i, j, k), averaged over all B^3 triplets.

    A triplet whose vertex coincides with another of its points has no angle and counts as equal.
    """

    def cosine(f: Array, i: int, j: int, k: int) -> float:
        a, b = f[i] - f[j], f[k] - f[j]
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / (np.sqrt(sum(x * x for x in a)) * np.sqrt(sum(y * y for y in b)))

    n = len(student)
    total = 0.0
    for i in range(n):
        for j in range(n):
            for k in range(n):
                if i != j and k != j:
                    total += huber(cosine(student, i, j, k), cosine(teacher, i, j, k))
    return total / n**3


def gradient(function: Callable[[Array], float], at: Array, step: float = 1e-3) -> Array:
    """Central differences of sixth order, error O(step^6)."""
    found = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        for offset, factor in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60)):
            for sign in (1, -1):
                moved = at.copy()
                moved[index] += sign * offset * step
                found[index] += sign * factor * function(moved) / step
    return found
