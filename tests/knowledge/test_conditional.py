import math

import pytest
import torch
import torch.nn.functional as F

from naskd.knowledge.response.conditional import conditional_loss
from naskd.knowledge.response.logits import logits_loss

from .responses import random_logits, response, slope


def test_two_samples_by_hand() -> None:
    """The teacher (2/3, 1/3) is right about the first sample and wrong about the second; the student is undecided.

    KL = 2/3 ln(4/3) + 1/3 ln(2/3) for the first, averaged over both.
    """
    teacher = torch.tensor([[math.log(2), 0.0], [math.log(2), 0.0]])
    term, weights = conditional_loss(torch.zeros(2, 2), teacher, torch.tensor([0, 1]), 1.0)
    assert term.item() == pytest.approx((2 / 3 * math.log(4 / 3) + math.log(2 / 3) / 3) / 2, rel=1e-5)
    assert weights.tolist() == [0, 1]


def test_is_distillation_where_the_teacher_is_right_and_nothing_where_it_is_wrong() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    right, wrong = teacher.argmax(1), teacher.argmin(1)
    term, weights = conditional_loss(student, teacher, right, 3.0)
    torch.testing.assert_close(term, logits_loss(student, teacher, 3.0))
    assert weights.tolist() == [0] * 4
    term, weights = conditional_loss(student, teacher, wrong, 3.0)
    assert term == 0
    assert weights.tolist() == [1] * 4


@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_each_sample_hears_the_teacher_or_the_label_and_never_both(temperature: float) -> None:
    """The choice is made before anything is averaged, and T^2 stands on the teacher's part alone."""
    student, teacher = random_logits(), random_logits(seed=1)
    labels = torch.where(torch.tensor([True, False, False, True]), teacher.argmax(1), teacher.argmin(1))

    def total(x: torch.Tensor) -> torch.Tensor:
        term, weights = conditional_loss(x, teacher, labels, temperature)
        return term + (weights * F.cross_entropy(x, labels, reduction="none")).mean()

    found = slope(total, student)
    taught = slope(lambda x: logits_loss(x, teacher, temperature), student)
    told = slope(lambda x: F.cross_entropy(x, labels), student)
    torch.testing.assert_close(found[[0, 3]], taught[[0, 3]])
    torch.testing.assert_close(found[[1, 2]], told[[1, 2]])


def test_is_zero_at_equality_and_blind_to_a_constant() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    labels = teacher.argmax(1)
    assert conditional_loss(teacher, teacher, labels, 2.0)[0] == 0
    shift = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(
        conditional_loss(student + shift, teacher - shift, labels, 2.0)[0],
        conditional_loss(student, teacher, labels, 2.0)[0],
    )


def test_class_uses_its_temperature_and_weighs_the_labels() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    labels = torch.where(torch.tensor([True, False, True, True]), teacher.argmax(1), teacher.argmin(1))
    output = response("conditional", student, teacher, labels, temperature=3.0)
    expected = conditional_loss(student, teacher, labels, 3.0)
    assert torch.equal(output.term, expected[0])
    assert output.label_weights is not None
    assert torch.equal(output.label_weights, expected[1])
