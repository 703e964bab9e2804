import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.base import Lesson
from naskd.knowledge.relation.information_flow import InformationFlowLoss, flow_divergence
from naskd.nn.taps import Taps
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import changed, random_taps, shapes

from .test_pkt import EQUAL, ORTHOGONAL, rotation
from .test_similarity import vectors

STUDENT, TEACHER = shapes((4, 8), (6, 4), (8, 2)), shapes((8, 16), (12, 8), (16, 4), (20, 2))


def value(student: Taps, teacher: Taps, progress: float = 0.0, **options: float) -> Tensor:
    term = KnowledgeTerm("information_flow", options=tuple(options.items()))
    loss = InformationFlowLoss(term, student.shapes, teacher.shapes)
    labels = torch.zeros(len(student.logits), dtype=torch.long)
    return loss(student, loss.summarise(teacher), Lesson(labels, labels, progress)).term


def test_by_hand() -> None:
    """Of two samples, a row of P is (p, 1 - p) in the student and (1/2, 1/2) in the teacher, whose samples are equal.

    A row then has ``(p - 1/2) log(p / (1 - p))``, for two pairs. Orthogonal samples: cosine kernel 1 and 1/2, p = 2/3;
    distance sqrt 2, heavy-tailed kernel 1 and 1 / (1 + sqrt 2), p = 1 / sqrt 2.
    """
    rows = [(p - 1 / 2) * math.log(p / (1 - p)) for p in (2 / 3, 0.5**0.5)]
    assert flow_divergence(ORTHOGONAL, EQUAL).item() == pytest.approx(sum(rows) / 2, rel=1e-6)


def test_is_symmetric_and_zero_at_equality_whatever_the_rotation_and_the_length_of_a_sample() -> None:
    x, other = vectors(5, 4), vectors(5, 3, seed=1)
    expected = flow_divergence(x, other)
    assert expected > 0
    torch.testing.assert_close(flow_divergence(other, x), expected)
    lengths = torch.tensor([1e-3, 1.0, 7.0, 1e3, 0.2]).double()[:, None]
    for same in (x, x @ rotation(4), x * lengths, torch.cat([x, x], dim=1)):
        assert abs(flow_divergence(same, x)) < 1e-20
        torch.testing.assert_close(flow_divergence(same, other), expected)


def test_equal_and_dead_samples_have_ordinary_gradients() -> None:
    """A root has no gradient at 0, a length none either, and a sample's distance to itself is 0."""
    x = vectors(6, 4)
    x[1], x[2], x[3] = x[0], x[0] + 1e-9, 0
    x.requires_grad_()
    flow_divergence(x, vectors(6, 4, seed=1)).backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() < 1


def test_gradient_is_that_of_the_value() -> None:
    teacher = vectors(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: flow_divergence(x, teacher), vectors(4, 3).requires_grad_())


def test_every_stage_counts_as_much_as_the_schedule_says() -> None:
    """Pairs by grid: 8x8, 4x4 and 2x2 with the teacher's second, third and fourth stage."""
    student, teacher = random_taps(STUDENT), random_taps(TEACHER, seed=1)
    last = flow_divergence(student.pooled, teacher.pooled)
    stages = sum(
        flow_divergence(student.stages[s].tensor.mean((2, 3)), teacher.stages[s + 1].tensor.mean((2, 3)))
        for s in range(3)
    )
    for progress in (0.0, 0.25, 0.9):
        found = value(student, teacher, progress, start=3.0, fall=2.0)
        torch.testing.assert_close(found, last + 3 * math.exp(-2 * progress) * stages)


def test_defaults_are_seven_tenths_an_epoch_over_fifty_epochs() -> None:
    options = KNOWLEDGE["information_flow"].options
    assert options["start"].default == 100
    assert math.exp(-options["fall"].default / 50) == pytest.approx(0.7, abs=1e-3)


def test_at_the_end_the_last_representation_alone_is_taught() -> None:
    student, teacher = random_taps(STUDENT), random_taps(TEACHER, seed=1)
    gradients = {}
    for progress in (0.0, 0.99):
        value(student, teacher, progress).backward()
        gradients[progress] = [
            x.grad.norm() for x in (student.pooled, *(tap.tensor for tap in student.stages))
        ]
        for x in (student.pooled, *(tap.tensor for tap in student.stages)):
            x.grad = None
    assert gradients[0.0][0] == gradients[0.99][0] > 0
    assert all(
        late < 1e-7 * early for early, late in zip(gradients[0.0][1:], gradients[0.99][1:], strict=True)
    )


def test_stages_are_averaged_over_space() -> None:
    student, teacher = random_taps(STUDENT), random_taps(TEACHER, seed=1)
    shuffled = changed(student, lambda x: x.flip(-1) if x.ndim == 4 else x)
    torch.testing.assert_close(value(shuffled, teacher), value(student, teacher))
