import pytest
import torch
from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.knowledge.relation.fsp import FspLoss, fsp_loss, fsp_matrix
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import STUDENTS, TEACHERS, random_taps


def maps(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(student: str = "three stages", teacher: str = "three stages") -> FspLoss:
    return FspLoss(KnowledgeTerm("fsp"), STUDENTS[student], TEACHERS[teacher])


def test_a_flow_by_hand() -> None:
    """Channels (1, 3) and (2, 0) at two places, then (5, 1): means (5 + 3) / 2 = 4 and (10 + 0) / 2 = 5."""
    a = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]])
    b = torch.tensor([[[[5.0, 1.0]]]])
    assert fsp_matrix(a, b).tolist() == [[[4.0], [5.0]]]
    # against a flow of zeros: (16 + 25) / 2, an average and not a sum over the matrix
    assert fsp_loss(fsp_matrix(a, b), torch.zeros(1, 2, 1)) == 20.5


@pytest.mark.parametrize("larger_first", [True, False])
def test_the_larger_grid_is_pooled(larger_first: bool) -> None:
    large, small = maps(2, 3, 4, 4), maps(2, 5, 2, 2, seed=1)
    means = large.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    expected = means.flatten(2) @ small.flatten(2).mT / 4
    found = fsp_matrix(large, small) if larger_first else fsp_matrix(small, large).mT
    torch.testing.assert_close(found, expected)


def test_says_what_flows_and_not_where() -> None:
    a, b = maps(2, 3, 2, 3), maps(2, 4, 2, 3, seed=1)
    expected = fsp_matrix(a, b)
    places = torch.tensor([4, 0, 5, 2, 1, 3])
    moved = [x.flatten(2)[..., places].view(x.shape) for x in (a, b)]
    torch.testing.assert_close(fsp_matrix(*moved), expected)
    torch.testing.assert_close(fsp_matrix(10 * a, b), 10 * expected)
    torch.testing.assert_close(fsp_matrix(a[:, [2, 0, 1]], b), expected[:, [2, 0, 1]])
    assert fsp_loss(fsp_matrix(*moved), expected) < 1e-30


def test_more_channels_of_the_same_kind_cost_the_same() -> None:
    """An average over the matrix: a sum, as in torchdistill, would be 4 times as large."""
    student, teacher = maps(2, 3, 4), maps(2, 3, 4, seed=1)
    torch.testing.assert_close(
        fsp_loss(student.repeat(1, 2, 2), teacher.repeat(1, 2, 2)), fsp_loss(student, teacher)
    )


def test_is_zero_for_a_student_that_does_what_its_teacher_does() -> None:
    loss = build("two stages", "tokens").double()
    student = random_taps(STUDENTS["two stages"], 3, dtype=torch.float64)
    a, b = (x.detach() for x in loss.adapted(student))
    index = torch.arange(3)
    names = [f"fsp_{i}_{j}" for i, j in [loss.teacher_stages]]
    assert loss(student, {names[0]: fsp_matrix(a, b)}, Lesson(index, index)).term == 0
    assert loss(student, {names[0]: fsp_matrix(a, 2 * b)}, Lesson(index, index)).term > 0


def test_keeps_one_small_matrix_of_each_flow_whatever_the_grid() -> None:
    summary = build().summarise(random_taps(TEACHERS["three stages"], 6))
    assert {name: tuple(x.shape) for name, x in summary.items()} == {
        "fsp_0_1": (6, 8, 12),
        "fsp_1_2": (6, 12, 16),
    }


def test_students_with_fewer_grids_share_a_stage_of_the_teacher() -> None:
    loss = build("1x1 maps only")
    assert list(loss.summarise(random_taps(TEACHERS["three stages"], 6))) == ["fsp_2_2"]


def test_a_student_of_any_width_is_brought_to_its_teachers() -> None:
    shapes = [tuple(x.shape) for x in build().adapted(random_taps(STUDENTS["three stages"], 2))]
    assert shapes == [(2, 8, 8, 8), (2, 12, 4, 4), (2, 16, 2, 2)]


def test_teaches_in_a_stage_of_its_own() -> None:
    """The student and the adapters learn there, and nothing of the loss does afterwards."""
    loss = build()
    assert loss.card.initial_stage == "term"
    assert loss.initial_modules() == [loss]
    assert loss.main_modules() == []


def test_needs_two_stages() -> None:
    for student, teacher in (("one stage", "three stages"), ("three stages", "one stage")):
        with pytest.raises(ValueError, match="2 stages, got 1"):
            build(student, teacher)


def test_half_precision_activations_do_not_overflow() -> None:
    x = torch.full((1, 2, 4, 4), 300.0, dtype=torch.float16)  # 300^2 is beyond float16
    assert fsp_matrix(x, x).tolist() == [[[90000.0] * 2] * 2]
