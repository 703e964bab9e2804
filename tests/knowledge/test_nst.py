from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from naskd.knowledge.feature.nst import NstLoss, nst_loss
from naskd.spec.design import KnowledgeTerm

from .stages import maps, showing, term


def channels(*rows: tuple[float, ...]) -> Tensor:
    """One sample whose channels have these values on a grid of one row."""
    return torch.tensor(rows)[None, :, None, :]


def test_two_channels_against_one_by_hand() -> None:
    """Student (1, 0) and (0, 1), teacher (0.6, 0.8), all of length 1.

    Squared dot products: student with itself (1 + 0 + 0 + 1) / 4, teacher with itself 1, across (0.36 + 0.64) / 2.
    """
    found = nst_loss(channels((1, 0), (0, 1)), channels((0.6, 0.8)))
    assert found.item() == pytest.approx(0.5 + 1 - 2 * 0.5)
    # one channel each: 1 + 1 - 2 * 0.36
    assert nst_loss(channels((3, 0)), channels((0.6, 0.8))).item() == pytest.approx(1.28)


def test_is_the_distance_of_the_channels_second_moments() -> None:
    """``(x . y)^2`` is the inner product of the outer products ``x x^T``, so that the discrepancy is the distance of
    their means, and never below 0."""
    student, teacher = maps(4, 3, 2, 3), maps(4, 5, 2, 3, seed=1)

    def moment(x: Tensor) -> Tensor:
        x = torch.nn.functional.normalize(x.flatten(2), dim=2)
        return torch.einsum("bci,bcj->bij", x, x) / x.shape[1]

    expected = (moment(student) - moment(teacher)).square().sum((1, 2)).mean()
    torch.testing.assert_close(nst_loss(student, teacher), expected)


def test_is_zero_at_equality_whatever_the_order_number_and_scale_of_channels() -> None:
    x, other = maps(3, 4, 3, 3), maps(3, 6, 3, 3, seed=1)
    assert nst_loss(x, x).abs() < 1e-15
    expected = nst_loss(x, other)
    scales = torch.tensor([1e-3, -2.0, 5.0, 1e3]).view(4, 1, 1)
    for same in (x[:, [2, 0, 3, 1]], torch.cat([x, x], 1), x * scales):
        assert nst_loss(same, x).abs() < 1e-15
        torch.testing.assert_close(nst_loss(same, other), expected, rtol=1e-10, atol=0)
        torch.testing.assert_close(nst_loss(other, same), expected, rtol=1e-10, atol=0)


def test_a_single_place_tells_dead_channels_from_live_ones_and_no_more() -> None:
    """Half of the student's channels dead: 1/4 + 1 - 2 * 1/2."""
    live = maps(3, 4, 1, 1)
    assert nst_loss(live, maps(3, 7, 1, 1, seed=1)).abs() < 1e-15
    half = live * torch.tensor([1.0, 1.0, 0.0, 0.0]).view(4, 1, 1)
    assert nst_loss(half, live).item() == pytest.approx(0.25)


def test_a_dead_channel_is_left_alone() -> None:
    x = maps(2, 3, 2, 2)
    x[:, 1] = 0
    x.requires_grad_()
    nst_loss(x, maps(2, 4, 2, 2, seed=1)).backward()
    assert x.grad[:, 1].abs().max() == 0
    assert x.grad[:, 0].abs().max() > 0


def test_the_larger_grid_is_pooled() -> None:
    small, large = maps(2, 3, 2, 2), maps(2, 4, 5, 3, seed=1)
    pooled = torch.nn.functional.adaptive_avg_pool2d(large, 2)
    assert nst_loss(small, large) == nst_loss(small, pooled)
    assert nst_loss(large, small) == nst_loss(pooled, small)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, tuple) else (made,):
            self.numbers = max(self.numbers, x.numel()) if isinstance(x, Tensor) else self.numbers
        return made


def test_makes_no_product_of_channels_and_places() -> None:
    """Neither on the way there nor back: the largest tensor is a kernel, ``B C^2``, and it waits for the way back with
    one other."""
    batch, own, others, side = 2, 24, 32, 4
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    x = maps(batch, own, side, side).float().requires_grad_()
    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            loss = nst_loss(x, maps(batch, others, side, side, seed=1).float())
        loss.backward()
    assert largest.numbers == batch * others**2
    assert sum(kept.values()) <= 4 * (batch * own * (own + others) + 4 * batch * (own + others) * side**2)


def test_pairs_are_summed_and_learned_ones_are_weighted() -> None:
    student, teacher = (
        showing(maps(3, 4, 4, 4), maps(3, 5, 2, 2)),
        showing(maps(3, 6, 4, 4), maps(3, 7, 2, 2)),
    )
    parts = {
        (s, t): nst_loss(student.stages[s].tensor, teacher.stages[t].tensor) for s in (0, 1) for t in (0, 1)
    }

    def found(pairs: str) -> Tensor:
        return term(
            NstLoss(KnowledgeTerm("nst", pairs=pairs), student.shapes, teacher.shapes), student, teacher
        )

    torch.testing.assert_close(found("all"), parts[0, 0] + parts[1, 1])
    assert min(parts.values()) * 2 < found("learned") < max(parts.values()) * 2
