import math

import pytest
import torch

from naskd.knowledge.response.tf_kd import tf_kd_loss

from .responses import random_logits, response, slope

LABELS = torch.tensor([3, 0, 6, 3])


def virtual(correct: float) -> torch.Tensor:
    """What the virtual teacher says: ``(4, 7)`` probabilities."""
    found = torch.full((4, 7), (1 - correct) / 6, dtype=torch.float64)
    found[torch.arange(4), LABELS] = correct
    return found


def test_three_classes_by_hand() -> None:
    """The teacher says (1/2, 1/4, 1/4), the student thirds: KL = 1/2 ln(3/2) + 1/2 ln(3/4)."""
    term = tf_kd_loss(torch.zeros(1, 3), torch.tensor([0]), 1.0, 0.5)
    assert term.item() == pytest.approx(0.5 * (math.log(3 / 2) + math.log(3 / 4)), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_is_zero_for_a_student_that_answers_like_the_virtual_teacher(temperature: float) -> None:
    shift = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)
    student = virtual(0.9).log() + shift
    assert tf_kd_loss(student, LABELS, temperature, 0.9).abs() < 1e-12
    assert slope(lambda x: tf_kd_loss(x, LABELS, temperature, 0.9), student).abs().max() < 1e-12
    assert tf_kd_loss(student, LABELS, temperature, 0.99) > 0.01


def test_high_temperature_leaves_the_teacher_its_opinion() -> None:
    """Pitfall: softening *probabilities* makes the teacher uniform, so that an undecided student would learn nothing.

    At high T the gradient is (z_s - z_t) / (B K), z_t the zero-mean log u; the student's logits are softened as well,
    and the sum over classes is not averaged.
    """
    student = random_logits()
    student -= student.mean(1, keepdim=True)
    teacher = virtual(0.99).log()
    teacher -= teacher.mean(1, keepdim=True)
    for at in (student, torch.zeros_like(student)):
        expected = (at - teacher) / at.numel()
        found = slope(lambda x: tf_kd_loss(x, LABELS, 1e5, 0.99), at)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        assert expected.abs().max() > 0.1


def test_names_of_classes_do_not_matter() -> None:
    student, order = random_logits(), torch.tensor([3, 1, 0, 6, 2, 5, 4])
    renamed = order.argsort()[LABELS]
    torch.testing.assert_close(
        tf_kd_loss(student[:, order], renamed, 2.0, 0.9), tf_kd_loss(student, LABELS, 2.0, 0.9)
    )


def test_class_needs_no_teacher_and_uses_its_settings() -> None:
    student = random_logits()
    for settings, correct in (({}, 0.99), ({"correct": 0.7}, 0.7)):
        output = response("tf_kd", student, torch.zeros(4, 2), LABELS, temperature=3.0, **settings)
        torch.testing.assert_close(output.term, tf_kd_loss(student, LABELS, 3.0, correct))
        assert output.label_weights is None


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_teacher_and_student_speak_of_the_classes_that_are_told_apart(temperature: float) -> None:
    """In a task of its own classes, as if there were no others."""
    student, told = random_logits(), torch.tensor([0, 3, 6])
    classes = torch.zeros(7, dtype=torch.bool).index_fill(0, told, True)
    among = torch.tensor([1, 0, 2, 1])

    def ours(x: torch.Tensor) -> torch.Tensor:
        return tf_kd_loss(x, LABELS, temperature, 0.9, classes)

    def theirs(x: torch.Tensor) -> torch.Tensor:
        return tf_kd_loss(x[:, told], among, temperature, 0.9)

    torch.testing.assert_close(ours(student), theirs(student))
    torch.testing.assert_close(slope(ours, student), slope(theirs, student))
    everything = torch.ones(7, dtype=torch.bool)
    torch.testing.assert_close(
        tf_kd_loss(student, LABELS, temperature, 0.9, everything),
        tf_kd_loss(student, LABELS, temperature, 0.9),
    )
