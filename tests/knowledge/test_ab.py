import pytest
import torch
from torch import Tensor

from naskd.knowledge.feature.ab import AbLoss, ab_loss
from naskd.nn.taps import Taps
from naskd.spec.design import KnowledgeTerm

from .stages import maps, showing, term, with_identities


def values(*x: float) -> Tensor:
    """One sample, one channel, these values in a row."""
    return torch.tensor(x)[None, None, None, :]


def built(student: Taps, teacher: Taps, **settings: object) -> AbLoss:
    loss = with_identities(AbLoss(KnowledgeTerm("ab", **settings), student.shapes, teacher.shapes).double())
    assert isinstance(loss, AbLoss)
    return loss


def test_by_hand() -> None:
    """With margin 1: inactive wanted, 0.5 and -2 found: 1.5^2 and 0. Active wanted, 0.5 and 2 found: 0.5^2 and 0. A
    teacher at 0 is inactive: 1.5^2 once more."""
    found = ab_loss(values(0.5, -2, 0.5, 2, 0.5), values(-1, -9, 1, 0.1, 0), 1.0)
    assert found.item() == pytest.approx(2.25 + 0 + 0.25 + 0 + 2.25)


def test_only_the_side_of_the_boundary_is_taught() -> None:
    student, teacher = maps(3, 4, 2, 2), maps(3, 4, 2, 2, seed=1)
    assert ab_loss(student, 1e3 * teacher, 1.0) == ab_loss(student, teacher, 1.0) > 0
    assert ab_loss(1.5 * teacher.sign(), teacher, 1.0) == 0
    assert ab_loss(0.5 * teacher.sign(), teacher, 1.0) > 0
    assert ab_loss(0.5 * teacher.sign(), teacher, 0.5) == 0


def test_sums_over_neurons_and_averages_over_the_batch() -> None:
    student, teacher = maps(3, 4, 2, 2), maps(3, 4, 2, 2, seed=1)
    expected = ab_loss(student, teacher, 1.0)
    torch.testing.assert_close(ab_loss(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1), 1.0), expected)
    torch.testing.assert_close(
        ab_loss(student.repeat(1, 2, 1, 1), teacher.repeat(1, 2, 1, 1), 1.0), 2 * expected
    )


def test_has_the_authors_constant_and_half_the_weight_for_every_stage_before() -> None:
    student = [maps(3, 4, side, side) for side in (8, 4, 2)]
    teacher = [maps(3, 4, side, side, seed=1) for side in (8, 4, 2)]
    parts = [ab_loss(s, t, 1.0) for s, t in zip(student, teacher, strict=True)]
    own, other = showing(*student), showing(*teacher)
    expected = 3 / 1000 * (parts[0] / 4 + parts[1] / 2 + parts[2])
    torch.testing.assert_close(term(built(own, other, pairs="all"), own, other), expected)
    torch.testing.assert_close(term(built(own, other, pairs="first"), own, other), 3 / 1000 * parts[0])


def test_a_larger_teacher_is_pooled_before_its_boundary_is_drawn() -> None:
    """Of 5, -1, -1, -1 most are inactive, their mean is not."""
    student, teacher = torch.zeros(1, 1, 1, 1), torch.tensor([[[[5.0, -1.0], [-1.0, -1.0]]]])
    student, teacher = student.double() + 0.25, teacher.double()
    loss = built(showing(student), showing(teacher))
    found = term(loss, showing(student), showing(teacher))
    assert found.item() == pytest.approx(3 / 1000 * (0.25 - 1) ** 2)


def test_the_margin_is_an_option() -> None:
    student, teacher = showing(maps(3, 4, 2, 2)), showing(maps(3, 4, 2, 2, seed=1))
    loss = built(student, teacher, options=(("margin", 2),))
    expected = 3 / 1000 * ab_loss(student.stages[0].tensor, teacher.stages[0].tensor, 2.0)
    torch.testing.assert_close(term(loss, student, teacher), expected)


def test_teaches_before_the_labels_and_not_beside_them() -> None:
    student = showing(maps(3, 4, 2, 2))
    loss = built(student, student)
    assert loss.card.initial_stage == "term"
    assert {p for m in loss.initial_modules() for p in m.parameters()} == set(loss.parameters())
    assert not loss.main_modules()
