import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.knowledge.feature.attention import AttentionLoss, attention_loss, attention_map
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import TEACHERS, random_taps, shapes

from . import reference
from .parity import assert_parity


def maps(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(student: Tensor, teacher: Tensor) -> Tensor:
    return attention_loss(attention_map(student), attention_map(teacher))


@pytest.mark.parametrize(
    ("student_grid", "teacher_grid"), [((2, 3), (2, 3)), ((2, 2), (5, 3)), ((5, 4), (2, 3)), ((1, 4), (3, 2))]
)
def test_equals_the_paper(student_grid: tuple[int, int], teacher_grid: tuple[int, int]) -> None:
    assert_parity(value, reference.attention, maps(2, 3, *student_grid), maps(2, 4, *teacher_grid, seed=1))


def test_disjoint_attention_by_hand() -> None:
    """Each looks at one of four places, another one: two of four unit errors."""
    student, teacher = torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 2, 2)
    student[0, 1, 0, 0], teacher[0, 4, 1, 1] = 7.0, -0.1
    assert value(student, teacher).item() == pytest.approx(2 / 4)


def test_is_zero_at_equality_for_any_channel_order_sign_and_scale() -> None:
    x = maps(3, 6, 4, 4)
    assert value(x, x) == 0
    other = maps(3, 6, 4, 4, seed=1)
    expected = value(x, other)
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    for changed in (x[:, order], -x, 1e3 * x, 1e-3 * x, x * torch.tensor([2.0, 1.0, 5.0]).view(3, 1, 1, 1)):
        torch.testing.assert_close(value(changed, other), expected, rtol=1e-10, atol=0)
        torch.testing.assert_close(value(other, changed), expected, rtol=1e-10, atol=0)


def test_duplicated_channels_look_the_same() -> None:
    """Wider networks have no larger attention: the channels are averaged and the map is normalised."""
    x, other = maps(3, 6, 4, 4), maps(3, 2, 4, 4, seed=1)
    torch.testing.assert_close(value(torch.cat([x, x], 1), other), value(x, other))


def test_falls_with_the_number_of_places() -> None:
    """The published constant does not carry over: four times the places, a quarter of the loss or less."""
    small, large = (value(maps(8, 4, s, s), maps(8, 4, s, s, seed=1)) for s in (4, 16))
    assert large < small / 8


def test_says_nothing_on_a_single_place() -> None:
    assert value(maps(3, 4, 1, 1), maps(3, 2, 8, 8, seed=1)) < 1e-30


def test_keeps_one_small_map_of_each_teacher_stage() -> None:
    teacher = random_taps(TEACHERS["three stages"], 6)
    student = shapes((4, 8), (6, 4), (8, 2))
    loss = AttentionLoss(KnowledgeTerm("attention", pairs="all"), student, teacher.shapes)
    summary = loss.summarise(teacher)
    assert {name: tuple(x.shape) for name, x in summary.items()} == {
        "attention_0": (6, 8, 8),
        "attention_1": (6, 4, 4),
        "attention_2": (6, 2, 2),
    }


def test_half_precision_activations_do_not_overflow() -> None:
    x = torch.full((1, 2, 2, 2), 300.0, dtype=torch.float16)  # 300^2 is beyond float16
    assert attention_map(x).max() == pytest.approx(90000, rel=1e-6)
    assert math.isfinite(value(x, x))


@pytest.mark.parametrize("grids", [((3, 4), (3, 4)), ((4, 4), (2, 2)), ((2, 2), (4, 4)), ((1, 1), (1, 1))])
def test_gradients_worked_out_by_hand_are_those_of_autograd(grids) -> None:
    torch.manual_seed(0)
    student = torch.randn(3, 5, *grids[0], dtype=torch.float64, requires_grad=True)
    teacher = torch.rand(3, *grids[1], dtype=torch.float64)
    with torch.no_grad():
        student[1] = 0  # an all-zero map
    own = attention_map(student)
    plain = student.square().mean(dim=1)
    small = (min(own.shape[1], teacher.shape[1]), min(own.shape[2], teacher.shape[2]))
    pooled = [torch.nn.functional.adaptive_avg_pool2d(x, small).flatten(1) for x in (plain, teacher)]
    expected = torch.nn.functional.mse_loss(
        torch.nn.functional.normalize(pooled[0], dim=1), torch.nn.functional.normalize(pooled[1], dim=1)
    )
    found = attention_loss(own, teacher)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(3 * found, student)
    (reference,) = torch.autograd.grad(3 * expected, student)
    torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("pairs", ["all", "learned"])
def test_several_pairs_are_the_sum_of_each(pairs: str) -> None:
    """Of three stages that differ in channels and grid, in value and in gradient."""
    teacher = random_taps(TEACHERS["three stages"], 5, dtype=torch.float64)
    student = random_taps(shapes((4, 8), (6, 4), (9, 3)), 5, seed=1, dtype=torch.float64)
    loss = AttentionLoss(KnowledgeTerm("attention", pairs=pairs), student.shapes, teacher.shapes).double()
    weights = torch.ones(len(loss.pairs), dtype=torch.float64)
    if loss.scores is not None:
        with torch.no_grad():
            loss.scores.copy_(torch.randn(loss.scores.shape, generator=torch.Generator().manual_seed(2)))
        weights = loss.scores.softmax(dim=1).flatten()
    expected = sum(
        weight
        * attention_loss(attention_map(student.stages[s].tensor), attention_map(teacher.stages[t].tensor))
        for weight, (s, t) in zip(weights, loss.pairs, strict=True)
    )
    index = torch.arange(5)
    found = loss(student, loss.summarise(teacher), Lesson(index, index)).term
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    wanted = [stage.tensor for stage in student.stages] + ([loss.scores] if loss.scores is not None else [])
    gradients, by_pair = (torch.autograd.grad(value, wanted) for value in (found, expected))
    for mine, other in zip(gradients, by_pair, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-14)
