import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge.relation.pkt import neighbours, pkt_loss

from .test_similarity import vectors

ORTHOGONAL = torch.eye(2, dtype=torch.float64)
EQUAL = torch.ones(2, 2, dtype=torch.float64)


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(vectors(size, size, seed=9)).Q


def test_by_hand() -> None:
    """Orthogonal: kernel 1 and 1/2, P 2/3 and 1/3. Equal: P 1/2 and 1/2.

    A row has 1/2 log(3/4) + 1/2 log(3/2) = 1/2 log(9/8), for its two pairs.
    """
    assert pkt_loss(ORTHOGONAL, EQUAL).item() == pytest.approx(math.log(9 / 8) / 4, rel=1e-6)


def test_is_zero_at_equality_whatever_the_rotation_the_width_and_the_length_of_a_sample() -> None:
    x, other = vectors(5, 4), vectors(5, 3, seed=1)
    expected = pkt_loss(x, other)
    assert expected > 0
    lengths = torch.tensor([1e-3, 1.0, 7.0, 1e3, 0.2]).double()[:, None]
    for same in (x, x @ rotation(4), x * lengths, torch.cat([x, x], dim=1)):
        assert abs(pkt_loss(same, x)) < 1e-14
        torch.testing.assert_close(pkt_loss(same, other), expected)
        torch.testing.assert_close(pkt_loss(other, same), pkt_loss(other, x))


def test_averages_over_pairs_so_that_it_falls_with_the_batch() -> None:
    """A constant that was published for 64 samples is four times too small for 256."""
    small, large = (pkt_loss(vectors(b, 16).relu(), vectors(b, 16, seed=1).relu()) for b in (32, 128))
    assert float(small / large) == pytest.approx(4, rel=0.25)


def test_probabilities_of_a_row_sum_to_one_even_of_opposite_and_dead_samples() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    found = neighbours(x)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3).double())
    torch.testing.assert_close(found[0], torch.tensor([2.0, 0.0, 1.0]).double() / 3)


@pytest.mark.parametrize("dead", [[0], [0, 1, 2, 3, 4]])
def test_dead_features_have_ordinary_gradients(dead: list[int]) -> None:
    """Public code has NaN here, and a length with a small constant 1e12 times too much."""
    x = vectors(5, 4)
    x[dead] = 0
    x.requires_grad_()
    pkt_loss(x, vectors(5, 4, seed=1)).backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() < 1


def test_one_sample_has_no_neighbours() -> None:
    x = vectors(1, 4).requires_grad_()
    loss = pkt_loss(x, vectors(1, 4, seed=1))
    loss.backward()
    assert loss == 0
    assert x.grad.abs().max() < 1e-15


def test_gradient_is_that_of_the_value() -> None:
    teacher = vectors(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: pkt_loss(x, teacher), vectors(4, 3).requires_grad_())
