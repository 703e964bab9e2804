import math

import pytest
import torch

from naskd.knowledge.comparison import soft_divergence, standardized
from naskd.knowledge.response.logits import logits_loss
from naskd.knowledge.response.wsld import soft_label_weights, wsld_loss

from .responses import random_logits, response, slope

LABELS = torch.tensor([3, 0, 6, 3])


def test_one_sample_by_hand() -> None:
    """The teacher gives the label 3/4, the student 1/2: w = 1 - exp(-ln 2 / ln(4/3))."""
    student, teacher, label = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]]), torch.tensor([0])
    weight = 1 - math.exp(-math.log(2) / math.log(4 / 3))
    kl = 0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2)
    assert soft_label_weights(student, teacher, label).item() == pytest.approx(weight, rel=1e-5)
    assert wsld_loss(student, teacher, label, 1.0).item() == pytest.approx(weight * kl, rel=1e-5)


def test_teacher_counts_where_it_knows_better() -> None:
    """1 - 1/e where both are equally good, towards 1 where the teacher is better, towards 0 where the student is."""
    known = torch.tensor([[6.0, 0.0, 0.0]])
    unsure, label = torch.zeros(1, 3), torch.tensor([0])
    assert soft_label_weights(unsure, unsure, label).item() == pytest.approx(1 - math.exp(-1), rel=1e-5)
    assert soft_label_weights(unsure, known, label) > 0.99
    assert soft_label_weights(known, unsure, label) < 0.01
    assert soft_label_weights(unsure, 1e4 * known, label) == 1  # a cross-entropy of 0 divides
    assert soft_label_weights(1e4 * known, unsure, label) == 0


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_weights_are_not_differentiated_and_know_no_temperature(temperature: float) -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    weights = soft_label_weights(student, teacher, LABELS)
    assert weights.min() < 0.9
    torch.testing.assert_close(
        slope(lambda x: wsld_loss(x, teacher, LABELS, temperature), student),
        weights[:, None] * slope(lambda x: logits_loss(x, teacher, temperature), student),
    )


def test_is_zero_at_equality_and_blind_to_a_constant() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    assert wsld_loss(teacher, teacher, LABELS, 2.0) == 0
    shift = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(
        wsld_loss(student + shift, teacher - shift, LABELS, 2.0), wsld_loss(student, teacher, LABELS, 2.0)
    )


def test_standardized_it_keeps_the_weights_of_the_raw_logits() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    weights = soft_label_weights(student, teacher, LABELS)
    shapes = standardized(student), standardized(teacher)
    output = response("wsld", student, teacher, LABELS, temperature=3.0, standardize=True)
    torch.testing.assert_close(output.term, (weights * soft_divergence(*shapes, 3.0)).mean())
    assert abs(output.term / wsld_loss(*shapes, LABELS, 3.0) - 1) > 0.01


def test_class_uses_its_temperature() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    output = response("wsld", student, teacher, LABELS, temperature=3.0)
    torch.testing.assert_close(output.term, wsld_loss(student, teacher, LABELS, 3.0))
    assert output.label_weights is None
