import math

import pytest
import torch

from naskd.knowledge.response.dkd import dkd_loss
from naskd.knowledge.response.logits import logits_loss

from .responses import random_logits, response, slope

LABELS = torch.tensor([3, 0, 6, 3])


def test_three_classes_by_hand() -> None:
    """The teacher says (4, 3, 1) / 8 and the label is the first class; the student says thirds.

    b_t = (1/2, 1/2) against (1/3, 2/3); q_t = (3/4, 1/4) against halves.
    """
    teacher = torch.tensor([[4.0, 3.0, 1.0]]).log()
    target = 0.5 * (math.log(3 / 2) + math.log(3 / 4))
    rest = 0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2)
    found = dkd_loss(torch.zeros(1, 3), teacher, torch.tensor([0]), 1.0, 2.0, 5.0)
    assert found.item() == pytest.approx(2 * target + 5 * rest, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_coupled_again_it_is_distillation(temperature: float) -> None:
    """KD = KL(b) + (1 - p_t(y)) KL(q), equation 6 of the paper, sample by sample."""
    for student, teacher, label in zip(random_logits(), random_logits(seed=1), LABELS, strict=True):
        sure = (teacher / temperature).softmax(0)[label].item()
        rows = student[None], teacher[None]
        torch.testing.assert_close(
            dkd_loss(*rows, label[None], temperature, 1.0, 1 - sure), logits_loss(*rows, temperature)
        )


def test_parts_are_decoupled() -> None:
    """The first knows only the label against all others; the second knows nothing of the label."""
    student, teacher = random_logits(), random_logits(seed=1)
    rows = torch.arange(4)
    rest = slope(lambda x: dkd_loss(x, teacher, LABELS, 2.0, 0.0, 1.0), student)
    assert rest[rows, LABELS].abs().max() == 0
    surer = student.clone()
    surer[rows, LABELS] += 5
    torch.testing.assert_close(
        dkd_loss(surer, teacher, LABELS, 2.0, 0.0, 1.0), dkd_loss(student, teacher, LABELS, 2.0, 0.0, 1.0)
    )
    others = torch.ones(4, 7, dtype=torch.bool).index_put((rows, LABELS), torch.tensor(False))
    swapped = student.clone()
    swapped[others] = student[others].reshape(4, 6).flip(1).flatten()
    torch.testing.assert_close(
        dkd_loss(swapped, teacher, LABELS, 2.0, 1.0, 0.0), dkd_loss(student, teacher, LABELS, 2.0, 1.0, 0.0)
    )
    assert dkd_loss(swapped, teacher, LABELS, 2.0, 0.0, 1.0) != dkd_loss(
        student, teacher, LABELS, 2.0, 0.0, 1.0
    )


def test_of_two_classes_nothing_is_left_beside_the_label() -> None:
    student, teacher, labels = random_logits(n_classes=2), random_logits(seed=1, n_classes=2), LABELS % 2
    assert dkd_loss(student, teacher, labels, 4.0, 0.0, 8.0) == 0
    torch.testing.assert_close(
        dkd_loss(student, teacher, labels, 4.0, 1.0, 8.0), logits_loss(student, teacher, 4.0)
    )


@pytest.mark.parametrize("gap", [200.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_student_that_is_surely_right_is_told_to_doubt(gap: float, dtype: torch.dtype) -> None:
    """Pitfall: log(1 - p_y) of a saturated student at T = 1 is -inf when taken from probabilities.

    Against a teacher that says fifths, KL(b) = 1/5 ln(1/5) + 4/5 (ln(4/5) - log(1 - p_y)), log(1 - p_y) = ln 4 - gap
    up to exp(-gap), and its slope at the label is 4/5.
    """
    student = torch.zeros(1, 5, dtype=dtype)
    student[0, 2] = gap
    gap = student[0, 2].item()  # as bfloat16 has it
    teacher, label = torch.zeros(1, 5), torch.tensor([2])
    expected = 0.2 * math.log(0.2) + 0.8 * (math.log(0.8) - math.log(4) + gap)
    assert dkd_loss(student, teacher, label, 1.0, 1.0, 8.0).item() == pytest.approx(expected, rel=1e-5)
    found = slope(lambda x: dkd_loss(x, teacher, label, 1.0, 1.0, 8.0), student).float()
    torch.testing.assert_close(found, torch.tensor([[-0.2, -0.2, 0.8, -0.2, -0.2]]), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("gap", [200.0, 1e4])
@pytest.mark.parametrize("sides", [(1, 1), (-1, 1), (1, -1), (-1, 0), (0, 1)])
def test_saturated_answers_have_finite_gradients(gap: float, sides: tuple[int, int]) -> None:
    signed = gap * (torch.eye(5) - 0.5)
    student, teacher = sides[0] * signed, sides[1] * signed
    assert dkd_loss(student, teacher, torch.arange(5), 1.0, 1.0, 8.0).isfinite()
    found = slope(lambda x: dkd_loss(x, teacher, torch.arange(5), 1.0, 1.0, 8.0), student)
    assert found.isfinite().all()
    assert (found.abs().max() > 0.01) == (sides != (1, 1))


def test_is_zero_at_equality_and_blind_to_a_constant() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    assert dkd_loss(teacher, teacher, LABELS, 4.0, 1.0, 8.0) == 0
    shift = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(
        dkd_loss(student + shift, teacher - shift, LABELS, 4.0, 1.0, 8.0),
        dkd_loss(student, teacher, LABELS, 4.0, 1.0, 8.0),
    )


def test_class_uses_its_settings() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    for settings, expected in (({}, (1.0, 8.0)), ({"alpha": 0.5, "beta": 2.0}, (0.5, 2.0))):
        output = response("dkd", student, teacher, LABELS, temperature=3.0, **settings)
        torch.testing.assert_close(output.term, dkd_loss(student, teacher, LABELS, 3.0, *expected))
        assert output.label_weights is None
