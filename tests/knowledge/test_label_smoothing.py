import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from naskd.knowledge.base import Lesson, Mixed
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


def smoothed(logits: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Cross-entropy with smoothed labels, ``(B,)``."""
    return F.cross_entropy(logits, labels, label_smoothing=epsilon, reduction="none")


def said(student: torch.Tensor, lesson: Lesson, epsilon: float) -> torch.Tensor:
    """What the labels and their smoothing say together."""
    term, weights = label_smoothing_loss(student, epsilon, lesson)
    return term + lesson.label_loss(student, weights)


def test_images_without_a_label_have_none_to_be_smoothed() -> None:
    student, labels = random_logits(), torch.tensor([3, -100, 6, -100])
    lesson = Lesson(labels, labels, partly_labelled=True)
    torch.testing.assert_close(
        said(student, lesson, 0.2), smoothed(student[[0, 2]], labels[[0, 2]], 0.2).mean()
    )
    found = slope(lambda x: label_smoothing_loss(x, 0.2, lesson)[0], student)
    assert found[[1, 3]].abs().max() == 0 < found[[0, 2]].abs().min()


def test_a_smoothed_label_counts_as_much_as_its_class_does() -> None:
    student, counts = random_logits(), torch.rand(7, dtype=torch.float64)
    lesson = Lesson(LABELS, LABELS, class_weights=counts)
    expected = (counts[LABELS] * smoothed(student, LABELS, 0.3)).mean()
    torch.testing.assert_close(said(student, lesson, 0.3), expected)
    mixed = replace(lesson, mixed=Mixed(LABELS.roll(1), torch.tensor(0.7, dtype=torch.float64)))
    other = (counts[LABELS.roll(1)] * smoothed(student, LABELS.roll(1), 0.3)).mean()
    torch.testing.assert_close(said(student, mixed, 0.3), 0.7 * expected + 0.3 * other)


def test_a_label_is_spread_over_the_classes_that_it_is_told_from() -> None:
    """In a task of its own classes, a label says nothing of those of other tasks."""
    student, told = random_logits(), torch.tensor([0, 3, 6])
    lesson = Lesson(LABELS, LABELS, classes=torch.zeros(7, dtype=torch.bool).index_fill(0, told, True))
    within = smoothed(student[:, told], torch.tensor([1, 0, 2, 1]), 0.2).mean()
    torch.testing.assert_close(said(student, lesson, 0.2), within)
    assert slope(lambda x: said(x, lesson, 0.2), student)[:, [1, 2, 4, 5]].abs().max() == 0
