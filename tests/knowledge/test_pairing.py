import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from naskd.knowledge.adapters import ChannelAdapter, pool_to_smaller
from naskd.knowledge.base import Lesson
from naskd.knowledge.feature.hint import HintLoss
from naskd.knowledge.pairing import pair_stages
from naskd.nn.taps import Tap, TapShape, TapShapes, as_map
from naskd.spec.design import KnowledgeTerm
from naskd.testing.taps import random_taps, shapes


def test_equal_grids_meet() -> None:
    student, teacher = shapes((4, 8), (6, 4), (8, 2)), shapes((8, 16), (12, 8), (16, 4), (20, 2))
    assert pair_stages(student, teacher, "all") == ((0, 1), (1, 2), (2, 3))


def test_choices_among_the_pairs() -> None:
    student = teacher = shapes((4, 8), (6, 4), (8, 2))
    assert pair_stages(student, teacher, "first") == ((0, 0),)
    assert pair_stages(student, teacher, "middle") == ((1, 1),)
    assert pair_stages(student, teacher, "last") == ((2, 2),)
    four = shapes((4, 16), (4, 8), (4, 4), (4, 2))
    assert pair_stages(four, four, "middle") == ((1, 1),)
    two = shapes((4, 8), (4, 4))
    assert pair_stages(two, two, "middle") == pair_stages(two, two, "first") == ((0, 0),)
    one = shapes((4, 8))
    assert {pair_stages(one, one, p) for p in ("first", "middle", "last", "all")} == {((0, 0),)}


def test_many_stages_of_the_teacher_teach_one_of_the_student() -> None:
    """With learned pairs: a student of one stage hears all of the teacher's, by weights that add up to 1."""
    student, teacher = shapes((4, 8)), shapes((8, 8), (6, 4), (8, 2))
    assert pair_stages(student, teacher, "learned") == ((0, 0), (0, 1), (0, 2))
    assert len(pair_stages(student, teacher, "all")) == 1
    term = KnowledgeTerm("hint", pairs="learned")
    assert term.canonical(1) == term
    loss = HintLoss(term, student, teacher)
    own, other = random_taps(student, 3), random_taps(teacher, 3, seed=1)
    assert loss.scores is not None
    with torch.no_grad():
        loss.scores.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
    index = torch.arange(3)
    found = loss(own, loss.summarise(other), Lesson(index, index)).term.item()
    powers = [math.exp(score) for score in (0.5, -1.0, 2.0)]
    expected = 0.0
    for power, adapter, tap in zip(powers, loss.adapters, other.stages, strict=True):
        weight, bias = adapter.weight.detach().flatten(1).numpy(), adapter.bias.detach().numpy()
        target = tap.tensor.detach().numpy()
        side, errors = target.shape[-1], []
        shown = torch.nn.functional.adaptive_avg_pool2d(own.stages[0].tensor, side).detach().numpy()
        for b, h, w in itertools.product(range(3), range(side), range(side)):
            errors += ((weight @ shown[b, :, h, w] + bias - target[b, :, h, w]) ** 2).tolist()
        expected += power / sum(powers) * sum(errors) / len(errors)
    assert found == pytest.approx(expected, rel=1e-4)


def test_among_equal_grids_the_nearest_depth() -> None:
    student = shapes((4, 8), (4, 4), (4, 4), (4, 4))  # 4x4 at depths 1/2, 3/4 and 1
    teacher = shapes((4, 8), (4, 8), (4, 4), (4, 4))  # 8x8 at depths 1/4, 1/2; 4x4 at 3/4, 1
    assert pair_stages(student, teacher, "all") == ((0, 0), (1, 2), (2, 2), (3, 3))


def test_without_equal_grids_the_nearest_size() -> None:
    """A student at 32x32 and a teacher at 224x224, each with its own grids."""
    student = shapes((4, 32), (4, 16), (4, 8))
    teacher = shapes((8, 56), (8, 28), (8, 14), (8, 7))
    assert pair_stages(student, teacher, "all") == ((0, 1), (1, 2), (2, 3))


def test_on_a_tie_the_deeper_stage() -> None:
    def network(*positions: float) -> TapShapes:
        return TapShapes(5, tuple(TapShape(4, (4, 4), "map", p) for p in positions), (), 4)

    assert pair_stages(network(0.5), network(0.25, 0.75), "all") == ((0, 1),)
    assert pair_stages(network(0.5, 1.0), network(0.25, 0.75, 1.0), "all") == ((0, 1), (1, 2))


def test_a_common_grid_is_worth_more_than_depth() -> None:
    assert pair_stages(shapes((4, 8)), shapes((4, 16), (4, 8), (4, 7)), "all") == ((0, 1),)


def test_tokens_of_one_grid_pair_by_depth() -> None:
    student = shapes((4, 4), (4, 4), layout="tokens")
    teacher = shapes(*[(8, 4)] * 6, layout="tokens")
    assert pair_stages(student, teacher, "all") == ((0, 2), (1, 5))


def test_a_network_without_stages_is_refused() -> None:
    nothing = TapShapes(5, (), (), 8)
    with pytest.raises(ValueError, match="teacher shows 0 stages"):
        pair_stages(shapes((4, 8)), nothing, "all")
    with pytest.raises(ValueError, match="student shows 0 stages"):
        pair_stages(nothing, shapes((4, 8)), "all")


NETWORKS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4).map(
    lambda grids: TapShapes(
        5, tuple(TapShape(4, g, "map", (i + 1) / len(grids)) for i, g in enumerate(grids)), (), 4
    )
)


@given(NETWORKS, NETWORKS)
@settings(max_examples=100, deadline=None)
def test_equals_the_best_of_all_assignments_that_do_not_cross(student: TapShapes, teacher: TapShapes) -> None:
    def cost(assigned: tuple[int, ...]) -> tuple[int, float]:
        unequal, apart = 0, 0.0
        for own, t in zip(student.stages, assigned, strict=True):
            other = teacher.stages[t]
            unequal += own.grid != other.grid
            apart += abs(math.log2(math.prod(own.grid) / math.prod(other.grid))) / 2
            apart += abs(own.position - other.position)
        return unequal, apart

    found = pair_stages(student, teacher, "all")
    assert [s for s, _ in found] == list(range(len(student.stages)))
    assigned = tuple(t for _, t in found)
    assert list(assigned) == sorted(assigned)
    candidates = itertools.combinations_with_replacement(range(len(teacher.stages)), len(student.stages))
    best = min(cost(c) for c in candidates)
    assert cost(assigned)[0] == best[0]
    assert cost(assigned)[1] == pytest.approx(best[1], abs=1e-6)


def test_tokens_become_a_map_row_by_row() -> None:
    tokens = torch.arange(2 * 6 * 3.0).reshape(2, 6, 3)
    found = as_map(Tap(tokens, "tokens", 1.0, (2, 3)))
    assert found.shape == (2, 3, 2, 3)
    for row, column, channel in itertools.product(range(2), range(3), range(3)):
        assert found[1, channel, row, column] == tokens[1, 3 * row + column, channel]


def test_pooling_takes_the_smaller_side_of_each() -> None:
    a, b = torch.randn(2, 3, 8, 2), torch.randn(2, 5, 4, 6)
    pooled_a, pooled_b = pool_to_smaller(a, b)
    assert pooled_a.shape == (2, 3, 4, 2)
    assert pooled_b.shape == (2, 5, 4, 2)
    torch.testing.assert_close(pooled_a[:, :, 0], (a[:, :, 0] + a[:, :, 1]) / 2)
    assert pool_to_smaller(a, a)[0] is a


def test_an_adapter_commutes_with_pooling() -> None:
    torch.manual_seed(0)
    adapter, x = ChannelAdapter(3, 5), torch.randn(2, 3, 8, 8)
    target = torch.zeros(2, 5, 3, 3)
    torch.testing.assert_close(
        adapter(pool_to_smaller(x, target)[0]), pool_to_smaller(adapter(x), target)[0], rtol=1e-4, atol=1e-5
    )
