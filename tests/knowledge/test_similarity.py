import pytest
import torch
from torch import Tensor

from naskd.knowledge.relation.similarity import cosines, squared_distances


def vectors(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_cosines_by_hand() -> None:
    """Along the axes, the diagonal of the square, and nothing."""
    found = cosines(torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [0.0, 0.0]]))
    half = 0.5**0.5
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_squared_distances_by_hand() -> None:
    found = squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 25, 1], [25, 0, 18], [1, 18, 0]]).double())


@pytest.mark.parametrize("common", [1.0, 1e4, 1e7])
def test_a_large_common_part_leaves_distances_exact_and_the_diagonal_zero(common: float) -> None:
    x = vectors(6, 5) + common
    exact = (x[:, None] - x[None]).square().sum(dim=2)
    found = squared_distances(x)
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=0)
    assert (found.diagonal() == 0).all()


def test_autocast_leaves_them_alone() -> None:
    x = vectors(6, 5, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = cosines(x), squared_distances(x)
    assert torch.equal(found[0], cosines(x))
    assert torch.equal(found[1], squared_distances(x))
