"""Our loss and its gradient against the loops of :mod:`reference`."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from .reference import Array, gradient

TOLERANCE = 1e-6


def assert_parity(
    ours: Callable[[Tensor, Tensor], Tensor],
    theirs: Callable[[Array, Array], float],
    student: Tensor,
    teacher: Tensor,
    step: float = 1e-3,
) -> None:
    """Equal values and equal gradients at the student, to 1e-6 of their size, in float64.

    Args:
        ours: Student and teacher to a scalar.
        theirs: The same on arrays.
        student: What is differentiated.
        teacher: What is not.
        step: Of the numerical differentiation.
    """
    own = student.double().clone().requires_grad_()
    value = ours(own, teacher.double())
    value.backward()
    a, b = student.double().numpy(), teacher.double().numpy()
    expected, expected_gradient = theirs(a, b), gradient(lambda x: theirs(x, b), a, step)
    assert abs(expected) > 1e-6
    assert abs(value.item() - expected) <= TOLERANCE * abs(expected)
    assert own.grad is not None
    scale = np.abs(expected_gradient).max()
    assert scale > 0
    assert np.abs(own.grad.numpy() - expected_gradient).max() <= TOLERANCE * scale
