import pytest
import torch
from torch import Tensor

from naskd.knowledge.relation.ickd import IckdLoss, channel_gram, ickd_loss
from naskd.spec.design import KnowledgeTerm

from .stages import maps, showing, term, with_identities


def value(student: Tensor, teacher: Tensor) -> Tensor:
    return ickd_loss(student, channel_gram(teacher))


def test_two_channels_by_hand() -> None:
    """Orthogonal channels against channels with the cosine 0.6: two of four cosines are wrong by 0.6."""
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 4.0]]]])
    teacher = torch.tensor([[[[2.0, 0.0]], [[0.6, 0.8]]]])
    assert value(student, teacher).item() == pytest.approx(2 * 0.36 / 4)


def test_a_gram_matrix_holds_cosines() -> None:
    x = maps(2, 4, 3, 5)
    gram = channel_gram(x)
    for c in range(4):
        for d in range(4):
            expected = torch.nn.functional.cosine_similarity(x[:, c].flatten(1), x[:, d].flatten(1))
            torch.testing.assert_close(gram[:, c, d], expected)


def test_is_zero_at_equality_whatever_the_scale_of_channels_and_wherever_they_look() -> None:
    x, other = maps(3, 4, 3, 3), maps(3, 4, 2, 5, seed=1)
    assert value(x, x) == 0
    expected = value(x, other)
    scales = torch.tensor([1e-3, 2.0, 5.0, 1e3]).view(4, 1, 1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    turned = x.flatten(2) @ torch.linalg.qr(maps(9, 9, seed=2)).Q
    enlarged = torch.nn.functional.interpolate(x, scale_factor=2)
    for same in (x * scales, x.flatten(2)[:, :, order], turned, enlarged):
        same = same if same.ndim == 4 else same[..., None]
        assert value(same, x) < 1e-20
        torch.testing.assert_close(value(same, other), expected, rtol=1e-9, atol=0)
        torch.testing.assert_close(value(other, same), expected, rtol=1e-9, atol=0)


def test_a_channel_turned_over_is_not_the_same() -> None:
    """Cosines have a sign: one of two equal channels turned over, and two of four are wrong by 2, the most there is."""
    x = torch.ones(1, 2, 2, 2)
    assert value(x * torch.tensor([1.0, -1.0]).view(2, 1, 1), x).item() == pytest.approx(2 * 4 / 4)


def test_dead_channels_correlate_with_nothing_and_are_pulled_nowhere() -> None:
    x = maps(2, 3, 2, 2)
    x[:, 1] = 0
    gram = channel_gram(x)
    assert gram[:, 1].abs().max() == 0
    assert gram[:, 0, 0].min() == pytest.approx(1)
    x.requires_grad_()
    value(x, maps(2, 3, 2, 2, seed=1)).backward()
    assert x.grad[:, 1].abs().max() == 0
    assert 0 < x.grad.abs().max() < 10


def test_keeps_a_gram_matrix_of_each_teacher_stage() -> None:
    student, teacher = (
        showing(maps(3, 2, 4, 4), maps(3, 3, 2, 2)),
        showing(maps(3, 6, 4, 4), maps(3, 7, 2, 2)),
    )
    loss = IckdLoss(KnowledgeTerm("ickd", pairs="all"), student.shapes, teacher.shapes)
    summary = loss.summarise(teacher)
    assert {name: tuple(x.shape) for name, x in summary.items()} == {
        "channel_gram_0": (3, 6, 6),
        "channel_gram_1": (3, 7, 7),
    }


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    x = showing(maps(3, 4, 3, 3))
    loss = with_identities(IckdLoss(KnowledgeTerm("ickd"), x.shapes, x.shapes).double())
    assert term(loss, x, x) < 1e-20
    assert term(loss, showing(maps(3, 4, 3, 3, seed=1)), x) > 1e-3
