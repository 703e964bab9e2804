import pytest
import torch
from torch import Tensor

from naskd.knowledge.base import Lesson
from naskd.knowledge.relation.irg import IrgLoss, edges, irg_loss
from naskd.nn.taps import Taps, TapShapes
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import changed, random_taps, shapes

from .test_pkt import rotation
from .test_similarity import vectors

STUDENT, TEACHER = shapes((5, 8), (7, 4), (9, 2)), shapes((4, 8), (12, 4), (3, 2))
STUDENT_LINE, TEACHER_LINE = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])
NO_LOGITS = torch.zeros(3, 2)


def build(student: TapShapes = STUDENT, teacher: TapShapes = TEACHER, **options: float) -> IrgLoss:
    term = KnowledgeTerm("irg", options=tuple((name, float(value)) for name, value in options.items()))
    return IrgLoss(term, student, teacher)


def value(loss: IrgLoss, student: Taps, teacher: Taps) -> Tensor:
    index = torch.arange(len(student.logits))
    return loss(student, loss.summarise(teacher), Lesson(index, index)).term


def test_edges_by_hand() -> None:
    """Squared distances on a line: 1, 9 and 4 of 9; 1, 4 and 1 of 4."""
    expected = torch.tensor([[0, 1 / 9, 1], [1 / 9, 0, 4 / 9], [1, 4 / 9, 0]])
    torch.testing.assert_close(edges(STUDENT_LINE), expected.double())
    expected = torch.tensor([[0, 1 / 4, 1], [1 / 4, 0, 1 / 4], [1, 1 / 4, 0]])
    torch.testing.assert_close(edges(TEACHER_LINE), expected.double())


def test_parts_by_hand() -> None:
    """Vertices: 3 of the 6 logits differ by 2. Edges: the first of two stages differs, the second does not.

    The change from the first to the second then differs by as much as the first stage, and there is one change.
    """
    logits = torch.tensor([[0.0, 2.0], [2.0, 0.0], [0.0, 2.0]])
    first = 2 * ((1 / 9 - 1 / 4) ** 2 + (4 / 9 - 1 / 4) ** 2) / 9
    inputs = (
        logits,
        NO_LOGITS,
        [STUDENT_LINE, TEACHER_LINE],
        [TEACHER_LINE, TEACHER_LINE],
    )
    assert irg_loss(*inputs, 1, 0, 0).item() == pytest.approx(2)
    assert irg_loss(*inputs, 0, 1, 0).item() == pytest.approx(first / 2)
    assert irg_loss(*inputs, 0, 0, 1).item() == pytest.approx(first)
    assert irg_loss(*inputs, 0.1, 5, 7).item() == pytest.approx(0.2 + 2.5 * first + 7 * first)


def test_one_stage_does_not_change_into_another() -> None:
    inputs = (NO_LOGITS, NO_LOGITS, [STUDENT_LINE], [TEACHER_LINE])
    assert irg_loss(*inputs, 1, 1, 1e9) == irg_loss(*inputs, 1, 1, 0) > 0


def test_edges_do_not_see_where_the_samples_are_nor_how_far_apart_all_are() -> None:
    x = vectors(5, 4)
    for same in (x + 100, x @ rotation(4), 1e-3 * x, 1e3 * x, torch.cat([x, x], dim=1)):
        torch.testing.assert_close(edges(same), edges(x), rtol=1e-6, atol=1e-9)


def test_is_zero_at_equality() -> None:
    taps = random_taps(STUDENT)
    assert value(build(teacher=STUDENT), taps, random_taps(STUDENT)) == 0
    assert value(build(teacher=STUDENT), taps, random_taps(STUDENT, seed=1)) > 0


def test_equal_samples_have_no_edges_and_no_gradient() -> None:
    x = torch.ones(4, 3, requires_grad=True)
    logits = torch.zeros(4, 2)
    loss = irg_loss(logits, logits, [x], [vectors(4, 3)])
    loss.backward()
    assert not edges(x.detach()).any()
    assert loss.isfinite()
    assert not x.grad.any()


def test_a_batch_of_one_teaches_nothing_not_even_its_logits() -> None:
    student, teacher = random_taps(STUDENT, 1), random_taps(TEACHER, 1, seed=1)
    term = value(build(), student, teacher)
    term.backward()
    assert term == 0
    assert not student.logits.grad.any()


def test_gradient_is_that_of_the_value_the_largest_distance_included() -> None:
    logits, target = vectors(4, 3).requires_grad_(), vectors(4, 3, seed=1)
    stages = [vectors(4, size, seed=2).requires_grad_() for size in (2, 5)]
    targets = [vectors(4, size, seed=3) for size in (6, 3)]
    assert torch.autograd.gradcheck(
        lambda z, *x: irg_loss(z, target, x, targets, 0.1, 5, 7), (logits, *stages)
    )


def test_stages_are_averaged_over_space() -> None:
    student, teacher = random_taps(STUDENT), random_taps(TEACHER, seed=1)
    expected = value(build(), student, teacher)
    shuffled = changed(student, lambda x: x.flip(-1) if x.ndim == 4 else x)
    torch.testing.assert_close(value(build(), shuffled, teacher), expected)
    summary = build().summarise(teacher)
    assert {name: tuple(x.shape) for name, x in summary.items()} == {
        "logits": (6, 5),
        "stage_mean_0": (6, 4),
        "stage_mean_1": (6, 12),
        "stage_mean_2": (6, 3),
    }


@pytest.mark.parametrize(
    ("weights", "logits", "stages"),
    [
        ({"vertex": 0}, False, True),
        ({"edge": 0}, True, True),
        ({"transformation": 0}, True, True),
        ({"edge": 0, "transformation": 0}, True, False),
    ],
)
def test_what_has_no_weight_is_not_read(weights: dict[str, float], logits: bool, stages: bool) -> None:
    student, loss = random_taps(STUDENT), build(**weights)
    value(loss, student, random_taps(TEACHER, seed=1)).backward()
    assert bool(student.logits.grad.any()) == logits
    assert all(bool(tap.tensor.grad.any()) == stages for tap in student.stages)
    declared = {id(x) for x in loss.student_tensors(student)}
    assert (id(student.logits) in declared) == logits
    assert all((id(tap.tensor) in declared) == stages for tap in student.stages)


def test_what_teaches_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="vertex, edge and transformation"):
        build(vertex=0, edge=0, transformation=0)
    with pytest.raises(ValueError, match="single stage"):
        build(shapes((4, 4)), vertex=0, edge=0)
    assert build(vertex=0, edge=0)


def test_other_classes_are_refused() -> None:
    other = TapShapes(7, TEACHER.stages, TEACHER.pre_activations, TEACHER.n_features)
    with pytest.raises(ValueError, match="compares classes: the student has 5, the teacher 7"):
        build(teacher=other)
