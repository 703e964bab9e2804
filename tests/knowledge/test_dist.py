import pytest
import torch

from naskd.knowledge.response.dist import dist_loss

from .responses import random_logits, response, slope

LABELS = torch.tensor([3, 0, 6, 3])


def test_two_samples_by_hand() -> None:
    """Student (2, 1, 1) / 4 and (1, 2, 1) / 4, teacher (2, 1, 1) / 4 and (1, 1, 2) / 4.

    Within the samples: r = 1, and of (-1, 2, -1) with (-1, -1, 2), -3 / 6: 1 - mean = 3/4. Within the classes: 1, and 0
    for the second and third, where one side is constant: 1 - mean = 2/3.
    """
    student = torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0]]).log()
    teacher = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]).log()
    assert dist_loss(student, teacher, 1.0, 2.0, 3.0).item() == pytest.approx(2 * 3 / 4 + 3 * 2 / 3, rel=1e-5)


def test_asks_for_a_linear_relation_and_not_for_equality() -> None:
    teacher = random_logits()
    assert dist_loss(teacher, teacher, 1.0, 1.0, 1.0).abs() < 1e-12
    softer = (0.4 * teacher.softmax(1) + 0.6 / 7).log()  # the same answers, less sure
    assert dist_loss(softer, teacher, 1.0, 1.0, 1.0).abs() < 1e-12
    assert dist_loss(random_logits(seed=1), teacher, 1.0, 1.0, 1.0) > 0.1


def test_is_blind_to_a_constant_and_to_the_order_of_classes() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    order = torch.tensor([3, 1, 0, 6, 2, 5, 4])
    expected = dist_loss(student, teacher, 2.0, 1.0, 1.0)
    shift = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(dist_loss(student + shift, teacher - shift, 2.0, 1.0, 1.0), expected)
    torch.testing.assert_close(dist_loss(student[:, order], teacher[:, order], 2.0, 1.0, 1.0), expected)


def test_parts_look_along_classes_and_along_samples() -> None:
    """A teacher that answers alike for all samples: the second part is 1 whatever the student says, not the first."""
    student, teacher = random_logits(), random_logits(1, seed=1).expand(4, 7)
    assert dist_loss(student, teacher, 1.0, 0.0, 1.0).item() == pytest.approx(1, abs=1e-6)
    assert abs(dist_loss(student, teacher, 1.0, 1.0, 0.0).item() - 1) > 0.1


def test_one_sample_has_nothing_to_be_correlated_with() -> None:
    student, teacher = random_logits(1), random_logits(1, seed=1)
    assert dist_loss(student, teacher, 4.0, 1.0, 1.0) == 0
    assert slope(lambda x: dist_loss(x, teacher, 4.0, 1.0, 1.0), student).abs().max() == 0


def test_of_two_classes_the_first_part_knows_only_who_is_ahead() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    teacher = torch.tensor([[5.0, 0.0], [2.0, 0.0]])
    assert dist_loss(student, teacher, 1.0, 1.0, 0.0).item() == pytest.approx(1)  # of 0 and 2
    assert slope(lambda x: dist_loss(x, teacher, 1.0, 1.0, 0.0), student).abs().max() < 1e-6


def test_temperature_softens_and_its_square_scales() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    torch.testing.assert_close(
        dist_loss(3 * student, 3 * teacher, 3.0, 1.0, 1.0), 9 * dist_loss(student, teacher, 1.0, 1.0, 1.0)
    )


def test_class_uses_its_settings() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    for settings, expected in (({}, (1.0, 1.0)), ({"beta": 0.5, "gamma": 2.0}, (0.5, 2.0))):
        output = response("dist", student, teacher, LABELS, temperature=3.0, **settings)
        torch.testing.assert_close(output.term, dist_loss(student, teacher, 3.0, *expected))
        assert output.label_weights is None
