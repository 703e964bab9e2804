import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge.base import LossInputs, TeacherParts
from naskd.knowledge.feature.ofd import OfdLoss, negative_mean, ofd_loss
from naskd.nn.taps import Taps
from naskd.spec.design import KnowledgeTerm

from .stages import maps, showing, term, with_identities

Norm = tuple[Tensor, Tensor]


def values(*x: float) -> Tensor:
    """One sample, one channel, these values in a row."""
    return torch.tensor(x)[None, None, None, :]


def norm(channels: int, seed: int = 0) -> Norm:
    return maps(channels, seed=seed), maps(channels, seed=seed + 1)


def built(student: Taps, teacher: Taps, *norms: Norm | None, pairs: str = "last") -> OfdLoss:
    given = LossInputs(TeacherParts(norms=norms))
    loss = OfdLoss(KnowledgeTerm("ofd", pairs=pairs), student.shapes, teacher.shapes, given)
    with_identities(loss.double())
    return loss


def test_by_hand() -> None:
    """Margin -0.5. Student and teacher:

    1 and 2: the teacher is active, 1^2. -2 and 0.1: likewise, 2.1^2. 0.25 and -3: it shall be -0.5, 0.75^2. -1 and -3:
    it is below -0.5, 0. -1 and -0.2: it is below -0.2, 0.
    """
    found = ofd_loss(values(1, -2, 0.25, -1, -1), values(2, 0.1, -3, -3, -0.2), torch.tensor([-0.5]))
    assert found.item() == pytest.approx(1 + 2.1**2 + 0.75**2)


def test_a_student_below_an_inactive_teacher_is_left_alone() -> None:
    student = maps(2, 3, 4, 4).requires_grad_()
    teacher, margin = maps(2, 3, 4, 4, seed=1), -maps(3, seed=2).abs()
    ofd_loss(student, teacher, margin).backward()
    target = torch.maximum(teacher, margin.view(3, 1, 1))
    alone = (target <= 0) & (student <= target)
    assert 0 < alone.sum() < alone.numel()
    assert torch.equal(student.grad == 0, alone)


def test_is_zero_where_the_student_is_what_is_asked_of_it() -> None:
    teacher, margin = maps(2, 3, 4, 4), -maps(3, seed=2).abs()
    assert ofd_loss(torch.maximum(teacher, margin.view(3, 1, 1)), teacher, margin) == 0
    assert ofd_loss(teacher, teacher, margin) == 0


def test_sums_over_neurons_and_averages_over_the_batch() -> None:
    student, teacher, margin = maps(3, 4, 2, 2), maps(3, 4, 2, 2, seed=1), -maps(4, seed=2).abs()
    expected = ofd_loss(student, teacher, margin)
    twice = ofd_loss(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1), margin)
    torch.testing.assert_close(twice, expected)
    wider = ofd_loss(student.repeat(1, 2, 1, 1), teacher.repeat(1, 2, 1, 1), margin.repeat(2))
    torch.testing.assert_close(wider, 2 * expected)


def test_the_margin_is_the_mean_of_what_is_negative() -> None:
    """Against the integral, by Simpson's rule, of x and of 1 times the normal density below 0."""
    for shift, scale in ((0.0, 1.0), (1.5, 0.5), (-2.0, 3.0), (4.0, -1.0)):
        x = torch.linspace(min(shift, 0) - 12 * abs(scale), 0, 20001, dtype=torch.float64)
        weights = torch.tensor([1.0, *[4.0, 2.0] * 9999, 4.0, 1.0], dtype=torch.float64)
        weights = weights * torch.exp(-(((x - shift) / scale) ** 2) / 2)
        found = negative_mean(torch.tensor([shift]).double(), torch.tensor([scale]).double())
        assert found.item() == pytest.approx(float((weights * x).sum() / weights.sum()), rel=1e-8)


def test_the_margin_of_a_centred_channel_by_hand() -> None:
    found = negative_mean(torch.zeros(2), torch.tensor([1.0, -3.0]))
    assert found.tolist() == pytest.approx([-math.sqrt(2 / math.pi), -3 * math.sqrt(2 / math.pi)])


def test_the_margin_at_its_limits() -> None:
    """Nearly always negative: the mean itself. Hardly ever: ``-gamma^2 / beta``. Without deviation: what there is."""
    shift = torch.tensor([-1e4, -50.0, 1e4, 1e4, -2.0, 2.0, 0.0])
    scale = torch.tensor([1.0, 1.0, 1.0, 1e-30, 0.0, 0.0, 0.0])
    found = negative_mean(shift, scale)
    assert found.tolist() == pytest.approx([-1e4, -50.0, -1e-4, 0.0, -2.0, 0.0, 0.0], rel=1e-6, abs=1e-11)
    assert found.dtype == torch.float32


def test_the_margin_rises_smoothly_and_is_never_positive() -> None:
    """The authors' code falls to -3 at 3.09."""
    shift = torch.linspace(-40, 60, 4001, dtype=torch.float64)
    found = negative_mean(shift, torch.ones_like(shift))
    steps = found.diff()
    assert found.max() < 0
    assert steps.min() > 0
    assert steps.diff().max() < 1e-12
    assert negative_mean(torch.tensor([3.1]), torch.ones(1)) > -0.3


def test_uses_the_margins_of_the_stages_it_teaches_and_half_the_weight_for_every_stage_before() -> None:
    student = [maps(3, 4, side, side) for side in (8, 4)]
    teacher = [maps(3, 4, side, side, seed=1) for side in (8, 4)]
    norms = [norm(4, seed=5), norm(4, seed=7)]
    parts = [ofd_loss(s, t, negative_mean(*n)) for s, t, n in zip(student, teacher, norms, strict=True)]
    own, other = showing(*student), showing(*teacher)
    expected = parts[0] / 2 + parts[1]
    torch.testing.assert_close(term(built(own, other, *norms, pairs="all"), own, other), expected)
    torch.testing.assert_close(term(built(own, other, *norms), own, other), parts[1])


def test_a_larger_teacher_is_pooled_before_its_margin_is_applied() -> None:
    """The mean of 5, -9, -9, -9 is -5.5, below the margin; cut first, it would be above."""
    student = torch.zeros(1, 1, 1, 1).double()
    teacher = torch.tensor([[[[5.0, -9.0], [-9.0, -9.0]]]]).double()
    loss = built(showing(student), showing(teacher), (torch.zeros(1), torch.ones(1)))
    assert term(loss, showing(student), showing(teacher)).item() == pytest.approx(2 / math.pi)


def test_names_the_stage_without_a_norm_and_asks_for_the_chosen_stages_alone() -> None:
    student, teacher = (
        showing(maps(2, 3, 4, 4), maps(2, 4, 2, 2)),
        showing(maps(2, 5, 4, 4), maps(2, 6, 2, 2)),
    )
    with pytest.raises(ValueError, match=r"'ofd'.*stage 0 .*'ab'"):
        built(student, teacher, None, norm(6), pairs="all")
    with pytest.raises(ValueError, match=r"stage 0, 1 "):
        built(student, teacher, pairs="all")
    built(student, teacher, None, norm(6), pairs="last")
