import math

import pytest
import torch
from torch import Tensor

from naskd.knowledge.relation.rkd import RkdLoss, rkd_loss
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import STUDENTS, TEACHERS

from . import reference
from .parity import assert_parity


def features(batch: int, n_features: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, n_features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# One stretched embedding, so that distances differ enough to reach the linear part of Huber.
STUDENT = features(5, 3) * torch.tensor([1.0, 1.0, 1.0, 1.0, 6.0], dtype=torch.float64)[:, None]
TEACHER = features(5, 4, seed=1)


@pytest.mark.parametrize(
    ("distance_weight", "angle_weight"),
    [(1.0, 0.0), (0.0, 1.0), (25.0, 50.0)],
    ids=["distance", "angle", "both"],
)
def test_equals_the_paper(distance_weight: float, angle_weight: float) -> None:
    assert_parity(
        lambda s, t: rkd_loss(s, t, distance_weight, angle_weight),
        lambda s, t: (
            distance_weight * reference.rkd_distance(s, t) + angle_weight * reference.rkd_angle(s, t)
        ),
        STUDENT,
        TEACHER,
    )


def test_the_comparison_reaches_both_parts_of_huber() -> None:
    def ratios(f: Tensor) -> Tensor:
        d = torch.cdist(f, f)
        return d / (d.sum() / 20)

    gaps = (ratios(STUDENT) - ratios(TEACHER)).abs()
    assert gaps.max() > 1.2
    assert 0 < gaps[gaps > 0].min() < 0.8


def test_a_triangle_by_hand() -> None:
    """A right isosceles triangle against an equilateral one: cosines (0, r, r) against 1/2, r = 1 /
    sqrt(2)."""
    right = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    equilateral = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    r = math.sqrt(0.5)
    angles = 2 * (0.5 * 0.5**2 + 2 * 0.5 * (r - 0.5) ** 2) / 27
    assert rkd_loss(right, equilateral, 0, 1).item() == pytest.approx(angles, rel=1e-5)
    mean = (2 + math.sqrt(2)) / 3
    distances = 2 * (2 * 0.5 * (1 / mean - 1) ** 2 + 0.5 * (math.sqrt(2) / mean - 1) ** 2) / 9
    assert rkd_loss(right, equilateral, 1, 0).item() == pytest.approx(distances, rel=1e-5)


def test_is_zero_at_equality_wherever_the_embeddings_lie() -> None:
    x, other = features(8, 6), features(8, 3, seed=1)
    assert rkd_loss(x, x) == 0
    rotation = torch.linalg.qr(features(6, 6, seed=2)).Q
    expected = rkd_loss(x, other)
    for moved in (x @ rotation, 1e3 * x, 1e-3 * x, x + 100 * features(1, 6, seed=3)):
        torch.testing.assert_close(rkd_loss(moved, other), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(rkd_loss(other, moved), expected, rtol=1e-6, atol=0)
        assert rkd_loss(moved, x) < 1e-12


@pytest.mark.parametrize("offset", [0.0, 30.0, 1e6])
def test_float32_is_as_good_as_float64(offset: float) -> None:
    """Features with a large common part, as after a ReLU and pooling, lose no digits to cancellation."""
    x, other = (features(32, 64) + offset).float(), features(32, 16, seed=1).float()
    narrow = x.clone().requires_grad_()
    wide = (x.double() - offset).requires_grad_()  # exact, and the loss does not see where the embeddings lie
    value, expected = rkd_loss(narrow, other), rkd_loss(wide, other.double())
    value.backward()
    expected.backward()
    assert narrow.grad is not None
    assert wide.grad is not None
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    gap = (narrow.grad.double() - wide.grad).abs().max()
    assert gap < 1e-5 * wide.grad.abs().max()


@pytest.mark.parametrize("gap", [0.0, 1e-6, 1e-3])
def test_equal_and_nearly_equal_embeddings_have_moderate_gradients(gap: float) -> None:
    x = features(16, 8).float()
    ordinary = x.clone().requires_grad_()
    rkd_loss(ordinary, features(16, 8, seed=1).float()).backward()
    x[1] = x[0] + gap
    x.requires_grad_()
    rkd_loss(x, features(16, 8, seed=1).float()).backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() < 1e3 * ordinary.grad.abs().max()


def test_two_samples_have_one_distance_and_nothing_to_compare() -> None:
    x = features(2, 4).requires_grad_()
    loss = rkd_loss(x, features(2, 4, seed=1))
    loss.backward()
    assert loss < 1e-20
    assert x.grad.abs().max() < 1e-12


def test_keeps_no_cube_of_the_batch_whatever_the_number_of_features() -> None:
    """What waits for the backward pass, counted: of order B^2 and B D."""
    batch, n_features = 48, 1024
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    x = features(batch, n_features).float().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        loss = rkd_loss(x, features(batch, n_features, seed=1).float())
    assert loss.isfinite()
    assert sum(kept.values()) <= 8 * (20 * batch**2 + 4 * batch * n_features) < 8 * batch**2 * n_features


def test_a_second_backward_pass_gives_the_same() -> None:
    """As when a weight is balanced by the gradient before the step is taken."""
    x = features(6, 4).requires_grad_()
    loss = rkd_loss(x, features(6, 4, seed=1))
    first, second = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    tenfold = torch.autograd.grad(10 * loss, x)[0]
    torch.testing.assert_close(tenfold, 10 * first)


def test_options_reach_the_loss() -> None:
    student, teacher = STUDENTS["one stage"], TEACHERS["one stage"]
    options = (("angle_weight", 3), ("distance_weight", 2.0))
    loss = RkdLoss(KnowledgeTerm("rkd", options=options), student, teacher)
    assert (loss.distance_weight, loss.angle_weight) == (2.0, 3.0)
    nothing = KnowledgeTerm("rkd", options=(("angle_weight", 0.0), ("distance_weight", 0.0)))
    with pytest.raises(ValueError, match="both 0"):
        RkdLoss(nothing, student, teacher)
