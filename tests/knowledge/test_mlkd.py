import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge.response.logits import logits_loss
from naskd.knowledge.response.mlkd import mlkd_loss

from .responses import random_logits, response

LABELS = torch.arange(4)
ORDER = torch.tensor([2, 0, 3, 1])


def probabilities(logits: Tensor) -> list[Tensor]:
    return [(logits / temperature).softmax(1) for temperature in (2, 3, 4, 5, 6)]


def relations(student: Tensor, teacher: Tensor) -> Tensor:
    """What is left beside the sample's own divergence."""
    return mlkd_loss(student, teacher) - sum(logits_loss(student, teacher, t) for t in (2, 3, 4, 5, 6))


def test_one_sample_by_hand() -> None:
    """A teacher that is sure, (1, 0) at every T, and a student that says halves.

    KL = ln 2, times 4 + 9 + 16 + 25 + 36. At each of five T: between samples (1/4 + 1/4 - 1)^2 / 1 = 1/4, between
    classes ((1/4 - 1)^2 + 3 (1/4)^2) / 2 = 3/8.
    """
    teacher = torch.tensor([[1e4, 0.0]])
    found = mlkd_loss(torch.zeros(1, 2), teacher)
    assert found.item() == pytest.approx(90 * math.log(2) + 5 * (1 / 4 + 3 / 8), rel=1e-6)


def test_samples_in_another_order_have_the_same_relations_between_classes() -> None:
    """Then what is left is |P_s P_s^T - P_t P_t^T|^2 / B alone."""
    teacher = random_logits()
    student = teacher[ORDER]
    expected = sum((p[ORDER] @ p[ORDER].T - p @ p.T).square().sum() / 4 for p in probabilities(teacher))
    assert expected > 0.01
    torch.testing.assert_close(relations(student, teacher), expected)


def test_classes_in_another_order_have_the_same_relations_between_samples() -> None:
    """Then what is left is |P_s^T P_s - P_t^T P_t|^2 / K alone."""
    teacher = random_logits()
    student = teacher.roll(1, dims=1)
    expected = sum(
        (q.T @ q - p.T @ p).square().sum() / 7
        for q, p in zip(probabilities(student), probabilities(teacher), strict=True)
    )
    assert expected > 0.01
    torch.testing.assert_close(relations(student, teacher), expected)


def test_is_zero_at_equality_and_blind_to_a_constant() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    assert mlkd_loss(teacher, teacher) == 0
    shift = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(mlkd_loss(student + shift, teacher - shift), mlkd_loss(student, teacher))


def test_order_of_both_does_not_matter() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    classes = torch.tensor([3, 1, 0, 6, 2, 5, 4])
    torch.testing.assert_close(
        mlkd_loss(student[ORDER][:, classes], teacher[ORDER][:, classes]), mlkd_loss(student, teacher)
    )


def test_class_has_a_temperature_of_its_own() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    output = response("mlkd", student, teacher, LABELS, temperature=3.0)
    torch.testing.assert_close(output.term, mlkd_loss(student, teacher))
    assert output.label_weights is None
