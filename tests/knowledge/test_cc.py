import math

import pytest
import torch

from naskd.knowledge.base import Lesson
from naskd.knowledge.relation.cc import CcLoss, cc_loss, gaussian_kernel
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import random_taps, shapes

from .test_pkt import EQUAL, ORTHOGONAL, rotation
from .test_similarity import vectors


def test_by_hand() -> None:
    """gamma 1/2, order 1: ``(1 + cos) / e``. Off the diagonal 1/e and 2/e, on it equal: two of four have (1/e)^2."""
    assert cc_loss(ORTHOGONAL, EQUAL, gamma=0.5, order=1).item() == pytest.approx(math.exp(-2) / 2)


@pytest.mark.parametrize("gamma", [0.1, 0.4, 1.0])
def test_the_series_goes_to_the_gaussian_kernel(gamma: float) -> None:
    x = vectors(5, 4)
    n = x / x.norm(dim=1, keepdim=True)
    exact = (-gamma * (n[:, None] - n[None]).square().sum(dim=2)).exp()
    errors = [(gaussian_kernel(x, gamma, order) - exact).abs().max() for order in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * gamma**9 + 1e-6


def test_is_zero_at_equality_whatever_the_rotation_the_width_and_the_length_of_a_sample() -> None:
    x, other = vectors(5, 4), vectors(5, 3, seed=1)
    expected = cc_loss(x, other)
    assert expected > 0
    lengths = torch.tensor([1e-3, 1.0, 7.0, 1e3, 0.2]).double()[:, None]
    for same in (x, x @ rotation(4), x * lengths, torch.cat([x, x], dim=1)):
        assert cc_loss(same, x) < 1e-28
        torch.testing.assert_close(cc_loss(same, other), expected)
        torch.testing.assert_close(cc_loss(other, same), expected)


def test_compares_all_pairs_and_not_neighbours_in_the_batch() -> None:
    """Public code pairs samples i and i + 1, so that the order of the batch changes its value."""
    x, other = vectors(6, 4), vectors(6, 4, seed=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(cc_loss(x[order], other[order]), cc_loss(x, other))
    changed = x.clone()
    changed[5] = vectors(4, seed=2)
    moved = (gaussian_kernel(changed, 0.4, 2) - gaussian_kernel(x, 0.4, 2)).abs() > 1e-9
    assert moved.sum() == 10, "sample 5 with each of the five others, twice"


def test_one_sample_has_nothing_to_correlate_with() -> None:
    """In public code it is NaN."""
    x = vectors(1, 4).requires_grad_()
    loss = cc_loss(x, vectors(1, 4, seed=1))
    loss.backward()
    assert loss < 1e-30
    assert x.grad.abs().max() < 1e-15


def test_dead_features_have_ordinary_gradients() -> None:
    x = vectors(5, 4)
    x[0] = 0
    x.requires_grad_()
    cc_loss(x, vectors(5, 4, seed=1)).backward()
    assert x.grad.abs().max() < 1


def test_options_reach_the_kernel() -> None:
    student, teacher = random_taps(shapes((4, 4))), random_taps(shapes((8, 4)), seed=1)
    labels = torch.zeros(6, dtype=torch.long)
    for options in ({"gamma": 1.5}, {"order": 5}, {"gamma": 0.2, "order": 1}):
        term = KnowledgeTerm("cc", options=tuple(options.items()))
        loss = CcLoss(term, student.shapes, teacher.shapes)
        found = loss(student, loss.summarise(teacher), Lesson(labels, labels)).term
        torch.testing.assert_close(found, cc_loss(student.pooled, teacher.pooled, **options))


def test_gradient_is_that_of_the_value() -> None:
    teacher = vectors(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: cc_loss(x, teacher, 1.0, 4), vectors(4, 3).requires_grad_())
