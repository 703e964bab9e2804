import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.knowledge.relation.singular import aligned, singular_vectors
from naskd.knowledge.relation.svd import SvdLoss, correlation, svd_loss
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import STUDENTS, TEACHERS, random_taps


def vectors(*size: int, seed: int = 0) -> Tensor:
    x = torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)


def test_two_stages_of_one_channel_by_hand() -> None:
    """The student's vectors are 1 and 1, with R = exp(0), the teacher's 1 and -1, with R = exp(-2^2 / 8)."""
    one = torch.ones(1, 1, 1)
    assert correlation(one, -one).item() == pytest.approx(math.exp(-0.5))
    assert svd_loss([one, one], [one, -one]).item() == pytest.approx((1 - math.exp(-0.5)) ** 2)


def test_is_a_sum_over_flows_channels_and_vectors_and_a_mean_over_samples() -> None:
    student, teacher = (
        [vectors(2, c, 3, seed=c) for c in (2, 4, 3)],
        [vectors(2, c, 3, seed=9 + c) for c in (2, 4, 3)],
    )
    expected = 0.0
    for flow in (0, 1):
        for b in range(2):
            for i in range(3):
                for p in range(student[flow].shape[1]):
                    for q in range(student[flow + 1].shape[1]):
                        r = [
                            math.exp(-(float(x[flow][b, p, i] - x[flow + 1][b, q, i]) ** 2) / 8)
                            for x in (student, teacher)
                        ]
                        expected += (r[0] - r[1]) ** 2 / 2
    assert svd_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_is_zero_at_equality_and_for_channels_in_another_order() -> None:
    student, teacher = (
        [vectors(3, 4, 2), vectors(3, 5, 2, seed=1)],
        [vectors(3, 4, 2, seed=2), vectors(3, 5, 2, seed=3)],
    )
    assert svd_loss(teacher, teacher) == 0
    order = torch.tensor([2, 0, 3, 1])
    moved = [[x[0][:, order], x[1]] for x in (student, teacher)]
    torch.testing.assert_close(svd_loss(*moved), svd_loss(student, teacher))


def test_arbitrary_signs_of_the_students_vectors_do_not_matter() -> None:
    maps = [torch.randn(3, c, 4, 4, generator=torch.Generator().manual_seed(c)) for c in (4, 6)]
    teacher = [vectors(3, c, 2, seed=c).float() for c in (4, 6)]

    def value(*signs: int) -> Tensor:
        own = [sign * singular_vectors(x, 2) for sign, x in zip(signs, maps, strict=True)]
        return svd_loss([aligned(x, t) for x, t in zip(own, teacher, strict=True)], teacher)

    assert value(1, 1) == value(-1, 1) == value(-1, -1)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_k_is_the_number_of_vectors(k: int) -> None:
    student, teacher = (
        random_taps(STUDENTS["three stages"], 3),
        random_taps(TEACHERS["three stages"], 3, seed=1),
    )
    loss = SvdLoss(KnowledgeTerm("svd", options=(("k", k),)), student.shapes, teacher.shapes)
    other = loss.teacher_vectors(loss.summarise(teacher), k)
    own = loss.student_vectors(student, other)
    assert (
        [tuple(x.shape) for x in own]
        == [tuple(x.shape) for x in other]
        == [(3, 8, k), (3, 12, k), (3, 16, k)]
    )
    for x in (*own, *other):
        torch.testing.assert_close(torch.linalg.vector_norm(x, dim=(1, 2)), torch.ones(3))
    found = loss(student, loss.summarise(teacher), Lesson(torch.arange(3), torch.arange(3))).term
    torch.testing.assert_close(found, svd_loss(own, other))


def test_needs_two_stages() -> None:
    with pytest.raises(ValueError, match="2 stages, got 1"):
        SvdLoss(KnowledgeTerm("svd"), STUDENTS["one stage"], TEACHERS["three stages"])
