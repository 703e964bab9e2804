import math

import pytest
import torch
import torch.nn.functional as F

from naskd.knowledge.response.label_smoothing import label_smoothing_loss

from .responses import random_logits, response, slope

LABELS = torch.tensor([3, 0, 6, 3])


def test_two_classes_by_hand() -> None:
    """Answers (1/4, 3/4), epsilon 0.2: 0.1 for each class."""
    term, weights = label_smoothing_loss(torch.tensor([[0.0, math.log(3)]]), 0.2)
    assert term.item() == pytest.approx(-0.1 * (math.log(1 / 4) + math.log(3 / 4)), rel=1e-6)
    assert weights.tolist() == pytest.approx([0.8])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_with_the_weighted_label_it_is_cross_entropy_with_smoothed_labels(epsilon: float) -> None:
    def ours(x: torch.Tensor) -> torch.Tensor:
        term, weights = label_smoothing_loss(x, epsilon)
        return term + (weights * F.cross_entropy(x, LABELS, reduction="none")).mean()

    def theirs(x: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(x, LABELS, label_smoothing=epsilon)

    student = random_logits()
    torch.testing.assert_close(ours(student), theirs(student))
    torch.testing.assert_close(slope(ours, student), slope(theirs, student))


def test_label_keeps_its_share_of_what_is_spread() -> None:
    """Pitfall: 1 - epsilon + epsilon / K for the label, as the optimum shows, and not 1 - epsilon (Tf-KD's code)."""
    epsilon, n_classes = 0.3, 7
    target = torch.full((1, n_classes), epsilon / n_classes)
    target[0, 2] += 1 - epsilon

    def total(x: torch.Tensor) -> torch.Tensor:
        term, weights = label_smoothing_loss(x, epsilon)
        return term + weights.mean() * F.cross_entropy(x, torch.tensor([2]))

    assert slope(total, target.log()).abs().max() < 1e-7
    assert slope(total, torch.zeros(1, n_classes)).abs().max() > 0.1


def test_is_least_where_all_classes_are_equal() -> None:
    even = torch.full((4, 7), 5.0, dtype=torch.float64)
    assert label_smoothing_loss(even, 0.1)[0].item() == pytest.approx(0.1 * math.log(7))
    assert slope(lambda x: label_smoothing_loss(x, 0.1)[0], even).abs().max() < 1e-12
    student = random_logits()
    assert label_smoothing_loss(student, 0.1)[0] > 0.1 * math.log(7)
    torch.testing.assert_close(label_smoothing_loss(student + 100, 0.1), label_smoothing_loss(student, 0.1))


def test_class_needs_no_teacher_and_uses_its_option() -> None:
    student = random_logits()
    for settings, epsilon in (({}, 0.1), ({"epsilon": 0.4}, 0.4)):
        output = response("label_smoothing", student, torch.zeros(4, 2), LABELS, **settings)
        torch.testing.assert_close(
            (output.term, output.label_weights), label_smoothing_loss(student, epsilon)
        )
