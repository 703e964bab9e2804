import subprocess
import sys

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from naskd.spec.objectives import OBJECTIVES, Objective
from naskd.spec.pareto import front_mask, front_volume, hypervolume, non_dominated, objective_space

SENSES = [(True, False), (False, False), (True, True), (True, False, False), (False, True, False)]


def dominates(a, b, maximise):
    better = [x > y if m else x < y for x, y, m in zip(a, b, maximise, strict=True)]
    worse = [x < y if m else x > y for x, y, m in zip(a, b, maximise, strict=True)]
    return any(better) and not any(worse)


def brute_force(points, maximise):
    return [not any(dominates(q, p, maximise) for q in points) for p in points]


@pytest.mark.parametrize("maximise", SENSES)
@pytest.mark.parametrize("seed", range(20))
def test_front_equals_brute_force_on_integers_with_ties(maximise, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 2 + seed % 7, size=(rng.integers(0, 60), len(maximise)))
    assert non_dominated(points, maximise).tolist() == brute_force(points.tolist(), maximise)


def test_all_copies_of_a_tied_point_are_kept():
    assert non_dominated([[0.9, 10], [0.9, 10], [0.9, 11], [0.8, 10]], (True, False)).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert non_dominated([[0.0, -0.0], [-0.0, 0.0]], (True, False)).all()


def test_nan_is_never_on_the_front_and_dominates_nothing():
    points = [[np.nan, 1], [0.5, 5], [0.99, np.nan], [0.4, 6]]
    assert non_dominated(points, (True, False)).tolist() == [False, True, False, False]
    assert hypervolume(points, [0, 10], (True, False)) == pytest.approx(2.5)


def test_infinities_are_values():
    assert non_dominated([[np.inf, 5], [1.0, 5], [1.0, -np.inf]], (True, False)).tolist() == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("maximise", SENSES)
def test_nothing_is_a_front_too(maximise):
    assert non_dominated([], maximise).shape == (0,)
    assert hypervolume([], [1.0] * len(maximise), maximise) == 0


@pytest.mark.parametrize("maximise", SENSES)
@pytest.mark.parametrize("seed", range(10))
def test_hypervolume_equals_a_count_of_grid_cells(maximise, seed):
    """On integers the volume is the number of unit cells that some point dominates"""
    rng = np.random.default_rng(seed)
    side, m = 7, len(maximise)
    points = rng.integers(0, side + 1, size=(rng.integers(1, 25), m))
    reference = np.array([1 if up else side - 1 for up in maximise])
    cells = np.stack(np.meshgrid(*[np.arange(side)] * m, indexing="ij"), -1).reshape(-1, m)
    inside = np.ones(len(cells), dtype=bool)
    covered = np.zeros(len(cells), dtype=bool)
    for index, up in enumerate(maximise):
        inside &= cells[:, index] >= reference[index] if up else cells[:, index] < reference[index]
    for point in points:
        beaten = np.ones(len(cells), dtype=bool)
        for index, up in enumerate(maximise):
            beaten &= cells[:, index] < point[index] if up else cells[:, index] >= point[index]
        covered |= beaten
    assert hypervolume(points, reference, maximise) == pytest.approx((covered & inside).sum(), abs=1e-9)


@pytest.mark.parametrize("maximise", SENSES)
@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_equals_moocore(maximise, seed):
    points = np.random.default_rng(seed).normal(size=(40, len(maximise)))
    reference = [-1.5 if up else 1.5 for up in maximise]
    expected = moocore.hypervolume(points, ref=reference, maximise=list(maximise))
    assert hypervolume(points, reference, maximise) == pytest.approx(expected, rel=1e-12)


def test_one_objective():
    assert hypervolume([[3.0], [2.0], [9.0]], [5.0], (False,)) == 3
    assert non_dominated([[3.0], [2.0], [2.0]], (False,)).tolist() == [False, True, True]


def test_points_on_or_beyond_the_reference_point_contribute_nothing():
    assert hypervolume([[0.0, 5], [0.5, 10], [-1, 1], [2, 11]], [0, 10], (True, False)) == 0
    assert hypervolume([[0.0, 5, 5], [0.5, 10, 5]], [0, 10, 10], (True, False, False)) == 0


POINTS = st.integers(2, 3).flatmap(
    lambda m: arrays(
        np.float64, st.tuples(st.integers(1, 25), st.just(m)), elements=st.integers(-4, 4).map(float)
    )
)


@settings(max_examples=100, deadline=None)
@given(POINTS, st.randoms(use_true_random=False))
def test_order_and_copies_do_not_matter(points, random):
    maximise = (True, False, True)[: points.shape[1]]
    reference = [-4.5 if up else 4.5 for up in maximise]
    order = list(range(len(points)))
    random.shuffle(order)
    order += random.choices(order, k=5)
    mask = non_dominated(points, maximise)
    volume = hypervolume(points, reference, maximise)
    assert non_dominated(points[order], maximise).tolist() == mask[order].tolist()
    assert hypervolume(points[order], reference, maximise) == pytest.approx(volume, abs=1e-9)
    # The front alone has the volume of all points, and each of its distinct points a share of it.
    assert hypervolume(points[mask], reference, maximise) == pytest.approx(volume, abs=1e-9)
    for point in np.unique(points[mask], axis=0):
        others = points[(points != point).any(axis=1)]
        assert hypervolume(others, reference, maximise) < volume - 1e-9


def axes(*names):
    return [OBJECTIVES[name] for name in names]


def a_cost(name="energy", **changes):
    """A linear cost, unless told otherwise."""
    given = {"title": name, "direction": "minimize", "unit": "", "scale": "linear", "known": "before"}
    return Objective(name, implementation=len, **(given | changes))


def test_objective_space_takes_the_logarithm_where_the_scale_says_so():
    space = objective_space(
        [[0.9, 1000, 10], [np.nan, 1e6, np.nan]], axes("val_accuracy", "macs", "n_params")
    )
    np.testing.assert_allclose(space, [[0.9, 3, 1], [np.nan, 6, np.nan]])
    np.testing.assert_allclose(objective_space([100, 0.5], axes("macs", "val_accuracy")), [2, 0.5])
    np.testing.assert_allclose(objective_space([[-3.0], [0.0]], [a_cost()]), [[-3], [0]])
    assert objective_space([], axes("val_accuracy", "macs")).shape == (0, 2)


def test_front_and_volume_follow_direction_and_scale():
    points = [[0.5, 100.0], [0.9, 1000.0], [0.4, 1000.0]]
    by_log = axes("val_accuracy", "macs")
    assert front_mask(points, by_log).tolist() == [True, True, False]
    assert front_volume(points, by_log, {"macs": 1e4, "val_accuracy": 0.0}) == pytest.approx(
        0.5 * 1 + 0.9 * 1
    )
    linear = [by_log[0], a_cost()]
    assert front_mask(points, linear).tolist() == [True, True, False]
    volume = front_volume(points, linear, {"energy": 2000.0, "val_accuracy": 0.0})
    assert volume == pytest.approx(0.5 * 900 + 0.9 * 1000)
    more = [by_log[0], a_cost(direction="maximize")]
    assert front_mask(points, more).tolist() == [False, True, False]
    assert front_volume(points, more, {"energy": 0.0, "val_accuracy": 0.0}) == pytest.approx(0.9 * 1000)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"\(N, 2\).*\(1, 3\)"):
        non_dominated([[1, 2, 3]], (True, False))
    with pytest.raises(ValueError, match="reference_point must be 2 finite numbers"):
        hypervolume([[1, 2]], [1, np.nan], (True, False))
    with pytest.raises(ValueError, match="macs must be positive"):
        objective_space([[0.5, 0]], axes("val_accuracy", "macs"))
    with pytest.raises(ValueError, match="end in 2 objectives"):
        objective_space([0.5], axes("val_accuracy", "macs"))
    with pytest.raises(ValueError, match="maximise is empty"):
        non_dominated([], ())


def test_two_objectives_import_nothing_but_numpy():
    code = (
        "import sys, naskd.spec.pareto as p; p.hypervolume([[1, 2]], [0, 3], (True, False));"
        "print([m for m in ('torch', 'optuna', 'ray', 'moocore', 'matplotlib') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
