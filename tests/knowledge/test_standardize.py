"""The option of every loss that compares two networks' logits."""

import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge import KNOWLEDGE
from naskd.knowledge.comparison import standardized

from .responses import random_logits, response, slope

KINDS = [name for name in KNOWLEDGE.names() if "standardize" in KNOWLEDGE[name].options]
STUDENT, TEACHER = random_logits(), random_logits(seed=1)
LABELS = (
    TEACHER.argmax(1).roll(1).where(torch.arange(4) > 1, TEACHER.argmax(1))
)  # the teacher is right about two
SCALE = torch.tensor([[0.01], [2.0], [300.0], [1.0]], dtype=torch.float64)
SHIFT = torch.tensor([[3.0], [-7.0], [0.0], [100.0]], dtype=torch.float64)


def term(kind: str, student: Tensor, teacher: Tensor, labels: Tensor = LABELS, *, on: bool = True) -> Tensor:
    return response(kind, student, teacher, labels, temperature=2.0, standardize=on).term


def test_three_classes_by_hand() -> None:
    """The deviation is the unbiased one: sqrt((1 + 0 + 1) / 2) = 1."""
    found = standardized(torch.tensor([[1.0, 2.0, 3.0], [10.0, -10.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]))


def test_keeps_neither_scale_nor_place() -> None:
    logits = STUDENT
    torch.testing.assert_close(standardized(logits).mean(1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(standardized(logits).std(1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(standardized(SCALE * logits + SHIFT), standardized(logits))
    torch.testing.assert_close(standardized(-logits), -standardized(logits))


def test_constant_logits_become_zeros_with_a_finite_gradient() -> None:
    """Pitfall: a deviation has no gradient at 0."""
    for n_classes in (2, 7):
        constant = torch.tensor([[0.3], [0.0], [1e4], [-7.7]]).expand(4, n_classes)
        assert standardized(constant).abs().max() == 0  # nor is the rounding of their mean blown up
        weights = torch.randn(4, n_classes, generator=torch.Generator().manual_seed(0))
        found = slope(lambda x, w=weights: (w * standardized(x)).sum(), constant)
        assert found.isfinite().all()
        assert found.abs().max() > 0


def test_of_two_classes_only_who_is_ahead_is_left() -> None:
    """+-1 / sqrt(2), however far they are apart, so that nothing is taught by moving them."""
    logits = torch.tensor([[5.0, 2.0], [-1.0, 1e4], [0.0, 1e-3]])
    side = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [-1.0, 1.0]]) / math.sqrt(2)
    torch.testing.assert_close(standardized(logits), side, rtol=1e-5, atol=0)
    assert slope(lambda x: standardized(x)[:, 0].sum(), logits[:2]).abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_shape_of_each_sides_answers_counts(kind: str) -> None:
    """And a student whose logits are larger has a gradient smaller by as much."""
    expected = term(kind, STUDENT, TEACHER)
    torch.testing.assert_close(term(kind, STUDENT + SHIFT, TEACHER), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(term(kind, STUDENT, TEACHER + SHIFT), expected, rtol=1e-9, atol=0)
    if kind == "wsld":  # its weights are of the raw logits, see its own test
        return
    torch.testing.assert_close(term(kind, SCALE * STUDENT, TEACHER), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(term(kind, STUDENT, SCALE * TEACHER), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        SCALE * slope(lambda x: term(kind, x, TEACHER), SCALE * STUDENT),
        slope(lambda x: term(kind, x, TEACHER), STUDENT),
        rtol=1e-7,
        atol=1e-12,
    )
    for scaled in ((2 * STUDENT, TEACHER), (STUDENT, 2 * TEACHER)):
        assert abs(term(kind, *scaled, on=False) / term(kind, STUDENT, TEACHER, on=False) - 1) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_is_off_unless_asked_for(kind: str) -> None:
    plain = response(kind, STUDENT, TEACHER, LABELS, temperature=2.0).term
    assert torch.equal(plain, term(kind, STUDENT, TEACHER, on=False))
    assert not torch.isclose(plain, term(kind, STUDENT, TEACHER))


@pytest.mark.parametrize("kind", KINDS)
def test_narrow_logits_are_widened_first(kind: str) -> None:
    narrow = STUDENT.bfloat16(), TEACHER.bfloat16()
    wide = narrow[0].float(), narrow[1].float()
    torch.testing.assert_close(term(kind, *narrow), term(kind, *wide), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_finite_whatever_is_standardized(kind: str, n_classes: int) -> None:
    right = torch.eye(n_classes).repeat(3, 1)[:6]
    usual = random_logits(6, n_classes=n_classes).float()
    cases = [
        torch.zeros(6, n_classes),
        torch.full((6, n_classes), 3.3),
        1e4 * (2 * right - 1),
        -1e4 * right,
        1e-8 * right,
        right * (torch.arange(6) > 0)[:, None],
    ]
    for student, teacher in (
        [(c, usual) for c in cases] + [(usual, c) for c in cases] + [(c, c) for c in cases]
    ):
        for dtype in (torch.float32, torch.bfloat16):
            own = student.to(dtype, copy=True).requires_grad_()
            value = term(kind, own, teacher.to(dtype), right.argmax(1))
            value.backward()
            assert value.isfinite()
            assert value.dtype == torch.float32
            assert own.grad is not None
            assert own.grad.isfinite().all()
