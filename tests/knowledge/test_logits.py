import math

import pytest
import torch

from naskd.knowledge.base import Lesson
from naskd.knowledge.response.logits import LogitsLoss, logits_loss
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import STUDENTS, TEACHERS, random_taps, shapes

from . import reference
from .parity import assert_parity
from .responses import random_logits


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_equals_the_paper(temperature: float) -> None:
    assert_parity(
        lambda s, t: logits_loss(s, t, temperature),
        lambda s, t: reference.logits(s, t, temperature),
        random_logits(),
        random_logits(seed=1),
    )


def test_two_classes_by_hand() -> None:
    """KL between a fair coin and a coin of 3 to 1, at T = 2: logits 2 ln 3 apart."""
    student, teacher = torch.tensor([[2 * math.log(3.0), 0.0]]), torch.zeros(1, 2)
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert logits_loss(student, teacher, 2.0).item() == pytest.approx(4 * kl, rel=1e-6)


def test_is_zero_at_equality_and_blind_to_a_constant() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    assert logits_loss(student, student, 4.0) == 0
    shift = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(logits_loss(student + shift, student, 4.0), torch.zeros_like(shift).sum())
    torch.testing.assert_close(
        logits_loss(student + shift, teacher - shift, 4.0),
        logits_loss(student, teacher, 4.0),
        rtol=1e-10,
        atol=0,
    )


def test_averages_over_the_batch_and_not_over_classes() -> None:
    student, teacher = random_logits(), random_logits(seed=1)
    each = torch.stack(
        [logits_loss(student[i : i + 1], teacher[i : i + 1], 4.0) for i in range(len(student))]
    )
    torch.testing.assert_close(logits_loss(student, teacher, 4.0), each.mean())
    classes = torch.full((4, 3), -1e4, dtype=torch.float64)  # classes that nobody believes in change nothing
    wider = [torch.cat([x, classes], dim=1) for x in (student, teacher)]
    torch.testing.assert_close(logits_loss(*wider, 4.0), logits_loss(student, teacher, 4.0))


def test_high_temperature_matches_logits() -> None:
    """For zero-mean logits the gradient goes to (z_s - z_t) / (B K), the one of matching logits."""
    student, teacher = random_logits(), random_logits(seed=1)
    student, teacher = student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True)
    student.requires_grad_()
    logits_loss(student, teacher, 1e5).backward()
    expected = (student - teacher).detach() / student.numel()
    torch.testing.assert_close(student.grad, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item())


def test_uses_the_temperature_of_its_term() -> None:
    student, teacher = random_taps(STUDENTS["one stage"]), random_taps(TEACHERS["one stage"], seed=1)
    loss = LogitsLoss(KnowledgeTerm("logits", temperature=3.0), student.shapes, teacher.shapes)
    labels = torch.zeros(6, dtype=torch.long)
    assert torch.equal(
        loss(student, loss.summarise(teacher), Lesson(labels, labels)).term,
        logits_loss(student.logits, teacher.logits, 3.0),
    )


def test_refuses_other_classes() -> None:
    student = shapes((4, 4))
    teacher = random_taps(student).shapes
    teacher = type(teacher)(9, teacher.stages, teacher.pre_activations, teacher.n_features)
    with pytest.raises(ValueError, match="student has 5, the teacher 9"):
        LogitsLoss(KnowledgeTerm("logits"), student, teacher)
