import math

import pytest
import torch

from naskd.knowledge.feature.vid import Expectation, VidLoss, vid_loss
from naskd.spec.design import KnowledgeTerm

from .stages import maps, showing, term


def test_by_hand() -> None:
    """Errors 1 and 3 in two channels of variance 1 and 4: ``[(1 + log 1) + (9/4 + log 4)] / 2 / 2``."""
    student, teacher = torch.tensor([2.0, 5.0]).view(1, 2, 1, 1), torch.tensor([1.0, 8.0]).view(1, 2, 1, 1)
    found = vid_loss(student, teacher, torch.tensor([1.0, 4.0]))
    assert found.item() == pytest.approx((1 + 9 / 4 + math.log(4)) / 4)


def test_is_half_the_mean_squared_error_where_the_variance_is_1() -> None:
    student, teacher = maps(3, 4, 2, 5), maps(3, 4, 2, 5, seed=1)
    found = vid_loss(student, teacher, torch.ones(4))
    torch.testing.assert_close(found, (student - teacher).square().mean() / 2)


def test_the_best_variance_of_a_channel_is_its_mean_squared_error() -> None:
    student, teacher = maps(3, 4, 2, 5), maps(3, 4, 2, 5, seed=1)
    errors = (student - teacher).square().mean((0, 2, 3))
    best = errors.clone().requires_grad_()
    vid_loss(student, teacher, best).backward()
    assert best.grad.abs().max() < 1e-12
    for factor in (0.9, 1.1):
        assert vid_loss(student, teacher, errors * factor) > vid_loss(student, teacher, errors)


def test_may_be_negative_and_not_below_half_the_logarithm_of_the_variance() -> None:
    x = maps(3, 4, 2, 5)
    assert vid_loss(x, x, torch.full((4,), 0.01)).item() == pytest.approx(math.log(0.01) / 2)


@pytest.mark.parametrize("variance", [0.001, 1.0, 5.0, 1e4])
def test_begins_at_the_variance_of_the_option(variance: float) -> None:
    student, teacher = showing(maps(2, 3, 4, 4)), showing(maps(2, 6, 4, 4))
    loss = VidLoss(KnowledgeTerm("vid", options=(("variance", variance),)), student.shapes, teacher.shapes)
    _, found = loss.adapters[0](torch.zeros(1, 3, 4, 4))
    assert found.tolist() == pytest.approx([variance] * 6, rel=1e-5)


def test_the_variance_is_never_0() -> None:
    adapter = Expectation(2, 3, 5.0)
    with torch.no_grad():
        adapter.raw_variance.fill_(-1e4)
    assert adapter(torch.zeros(1, 2, 1, 1))[1].min() > 0


def test_the_variance_learns_with_the_mean() -> None:
    """A channel that cannot be told gets a larger variance than one that can."""
    torch.manual_seed(0)
    student = maps(64, 3, 2, 2).float()
    teacher = torch.cat([student[:, :1].relu(), 3 * maps(64, 1, 2, 2, seed=1).float()], dim=1)
    loss = VidLoss(KnowledgeTerm("vid"), showing(student).shapes, showing(teacher).shapes)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        term(loss, showing(student), showing(teacher)).backward()
        optimizer.step()
    _, variance = loss.adapters[0](student)
    assert variance[0] < 2 < 5 < variance[1]


def test_maps_are_pooled_before_the_convolutions() -> None:
    student, teacher = maps(2, 3, 5, 4), maps(2, 6, 2, 2, seed=1)
    loss = VidLoss(KnowledgeTerm("vid"), showing(student).shapes, showing(teacher).shapes).double()

    pooled = torch.nn.functional.adaptive_avg_pool2d(student, 2)
    mean, variance = loss.adapters[0](pooled)
    expected = vid_loss(mean, teacher, variance)
    torch.testing.assert_close(term(loss, showing(student), showing(teacher)), expected)
