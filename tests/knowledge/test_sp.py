import math

import pytest
import torch

from naskd.knowledge.relation.sp import SpLoss, sp_loss
from naskd.spec.design import KnowledgeTerm

from .stages import maps, showing, term


def test_unlike_against_alike_by_hand() -> None:
    """Two orthogonal samples have rows (1, 0), (0, 1); two equal ones (r, r), (r, r) with r = 1 / sqrt(2).

    In the Euclidean norm, that is; by absolute sums r would be 1/2.
    """
    r = math.sqrt(0.5)
    expected = 2 * ((1 - r) ** 2 + r**2) / 4
    found = sp_loss(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 1.0, 4.0]] * 2))
    assert found.item() == pytest.approx(expected)


def test_is_zero_at_equality_however_the_features_are_turned() -> None:
    x, other = maps(5, 3, 2, 2), maps(5, 4, 3, 3, seed=1)
    rotation = torch.linalg.qr(maps(12, 12, seed=2)).Q
    expected = sp_loss(x, other)
    assert expected > 0.01
    for same in (x, x[:, [1, 2, 0]], 1e3 * x, 1e-3 * x, x.flatten(1) @ rotation, torch.cat([x, x], 1)):
        assert sp_loss(same, x) < 1e-20
        torch.testing.assert_close(sp_loss(same, other), expected, rtol=1e-9, atol=0)
        torch.testing.assert_close(sp_loss(other, same), expected, rtol=1e-9, atol=0)


def test_samples_matter_and_their_order_does_not() -> None:
    x, other, order = maps(5, 3, 2, 2), maps(5, 4, 3, 3, seed=1), [3, 0, 4, 1, 2]
    torch.testing.assert_close(sp_loss(x[order], other[order]), sp_loss(x, other))
    assert (sp_loss(x[order], other) - sp_loss(x, other)).abs() > 1e-3


def test_scale_of_single_samples_is_heard() -> None:
    """A sample's own scale leaves its row as it is, but not its share in the others' rows."""
    x = maps(4, 3, 2, 2)
    assert sp_loss(x * torch.tensor([1.0, 1.0, 1.0, 9.0]).view(4, 1, 1, 1), x) > 1e-3


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_sample_has_nothing_to_resemble(value: float) -> None:
    x = torch.full((1, 3, 2, 2), value, requires_grad=True)
    loss = sp_loss(x, maps(1, 4, 3, 3).float())
    loss.backward()
    assert loss == 0
    assert x.grad.abs().max() == 0


def test_a_sample_of_zeros_does_not_drown_the_others() -> None:
    """Its row has no direction; pulled by one, as public code does, it would have a gradient of 1e12."""
    x, other = maps(6, 3, 2, 2).float(), maps(6, 4, 3, 3, seed=1).float()
    ordinary = x.clone().requires_grad_()
    sp_loss(ordinary, other).backward()
    x[2] = 0
    x.requires_grad_()
    sp_loss(x, other).backward()
    assert x.grad.abs().max() < 10 * ordinary.grad.abs().max()
    assert x.grad[0].abs().max() > 0


def test_large_half_precision_features_do_not_overflow() -> None:
    """2048 features of size 8: a squared length of 131,072 is beyond float16."""
    x = (8 * maps(4, 2048)).half()
    value = sp_loss(x, maps(4, 2048, seed=1).half())
    assert value.isfinite()
    torch.testing.assert_close(value, sp_loss(x.float(), maps(4, 2048, seed=1).half().float()))


def test_stages_are_compared_at_their_own_grids() -> None:
    """Pooled to one grid first, the student's checkerboards would be nothing."""
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).expand(3, 2, 2, 2) * torch.tensor([1.0, -1, 1]).view(
        3, 1, 1, 1
    )
    teacher = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1, 1)
    loss = SpLoss(KnowledgeTerm("sp"), showing(board).shapes, showing(teacher).shapes)
    assert term(loss, showing(board), showing(teacher)) < 1e-12
    assert {name: tuple(x.shape) for name, x in loss.summarise(showing(teacher)).items()} == {
        "stage_0": (3, 1, 1, 1)
    }
