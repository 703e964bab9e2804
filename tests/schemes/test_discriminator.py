import numpy as np
import pytest
import torch

from naskd.schemes.discriminator import (
    MapDiscriminator,
    VectorDiscriminator,
    check_discriminators,
    fixed,
    spread,
    squares_fooled,
    squares_told,
)
from naskd.schemes.scheme import CollapsedError


def drawn(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(n)
    return torch.from_numpy(random.normal(0, 1, (n, 1))), torch.from_numpy(random.normal(0, 1, (n, 1)))


def test_the_losses_by_the_definition() -> None:
    real, fake = drawn()
    told = sum((1 - r) ** 2 for r in real.flatten().tolist()) / 5
    told += sum(f**2 for f in fake.flatten().tolist()) / 5
    assert squares_told(real, fake).item() == pytest.approx(told, rel=1e-12)
    fooled = sum((1 - f) ** 2 for f in fake.flatten().tolist()) / 5
    assert squares_fooled(fake).item() == pytest.approx(fooled, rel=1e-12)


def test_who_is_never_wrong_has_no_loss_and_who_cannot_tell_half() -> None:
    one, nothing, half = torch.ones(4, 1), torch.zeros(4, 1), torch.full((4, 1), 0.5)
    assert squares_told(one, nothing).item() == 0
    assert squares_fooled(nothing).item() == 1
    assert squares_told(half, half).item() == 0.5


def test_the_spread_is_the_deviation_of_all_scores() -> None:
    real, fake = drawn()
    expected = np.std(real.flatten().tolist() + fake.flatten().tolist())
    assert spread(real, fake).item() == pytest.approx(expected, rel=1e-6)
    assert spread(torch.full((3, 1), 0.5), torch.full((3, 1), 0.5)).item() == 0


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (7, 3)])
def test_every_map_has_one_score_which_no_other_changes(grid: tuple[int, int]) -> None:
    """Without statistics of the batch, that is: else all reals and all fakes would be told by them."""
    torch.manual_seed(0)
    discriminator, maps = MapDiscriminator(3).train(), torch.randn(6, 3, *grid)
    scores = discriminator(maps)
    assert scores.shape == (6, 1)
    torch.testing.assert_close(discriminator(maps[:2]), scores[:2])
    assert len(scores.unique()) == 6


def test_who_is_fixed_answers_alike_and_learns_nothing() -> None:
    torch.manual_seed(0)
    for discriminator, x in (
        (MapDiscriminator(3), torch.randn(4, 3, 4, 4, requires_grad=True)),
        (VectorDiscriminator(5, 2), torch.randn(4, 5, requires_grad=True)),
    ):
        expected = discriminator(x)
        (wanted,) = torch.autograd.grad(expected.sum(), x)
        found = fixed(discriminator, x)
        found.sum().backward()
        assert torch.equal(found, expected)
        assert torch.equal(x.grad, wanted)
        assert all(p.grad is None for p in discriminator.parameters())


def test_after_a_good_epoch_nothing_happens() -> None:
    check_discriminators({"loss": 1.0, "discriminator": 0.4, "discriminator.spread": 0.1}, ["discriminator"])


@pytest.mark.parametrize(
    ("loss", "deviation", "says"),
    [
        (1e-6, 0.5, "peer1.discriminator has collapsed: it is never fooled, its loss was 1e-06"),
        (0.5, 0.0, "peer1.discriminator has collapsed: it says the same of everything"),
    ],
)
def test_who_has_collapsed_is_named_with_the_reason(loss: float, deviation: float, says: str) -> None:
    means = {"discriminator": 0.4, "discriminator.spread": 0.1}
    means |= {"peer1.discriminator": loss, "peer1.discriminator.spread": deviation}
    with pytest.raises(CollapsedError, match=says):
        check_discriminators(means, ["discriminator", "peer1.discriminator"])
