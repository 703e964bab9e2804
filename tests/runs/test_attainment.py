"""Attainment over runs: closed forms, and what holds of any runs."""

import random

import pytest

from naskd.report.compare_table import _arms
from naskd.runs.attainment import LEVELS, attainment, band, levels_of, needed
from naskd.spec.objectives import OBJECTIVES


def test_three_runs_by_hand():
    fronts = [[(1, 0.2), (4, 0.6)], [(2, 0.3), (3, 0.5)], [(2, 0.4), (5, 0.9)]]
    assert attainment(fronts) == {
        "cost": [1, 2, 3, 4, 5],
        "any": [0.2, 0.4, 0.5, 0.6, 0.9],
        "median": [None, 0.3, 0.4, 0.5, 0.6],
        "all": [None, 0.2, 0.2, 0.4, 0.5],
    }


def test_one_run_attains_its_own_front():
    found = attainment([[(3, 0.5), (1, 0.2), (2, 0.1)]])
    assert found["cost"] == [1, 3]
    assert found["any"] == found["median"] == found["all"] == [0.2, 0.5]


def test_a_run_with_nothing_attains_nothing():
    found = attainment([[(1, 0.2)], []])
    assert (found["any"], found["median"], found["all"]) == ([0.2], [0.2], [None])
    assert attainment([[], []])["cost"] == []


def test_a_cost_of_which_more_is_better_runs_the_other_way():
    found = attainment([[(1, 0.6), (4, 0.2)], [(3, 0.5)]], less=False)
    assert found["cost"] == [4, 3, 1]
    assert found["any"] == [0.2, 0.5, 0.6]
    assert found["all"] == [None, 0.2, 0.5]


def test_any_is_no_worse_than_half_and_half_no_worse_than_all():
    draw = random.Random(0)
    for _ in range(30):
        fronts = [[(draw.randint(1, 9), draw.random()) for _ in range(5)] for _ in range(draw.randint(1, 6))]
        found = attainment(fronts)
        for level in LEVELS:
            values = [value for value in found[level] if value is not None]
            assert values == sorted(values)
        for any_of, median, all_of in zip(*(found[level] for level in LEVELS), strict=True):
            assert any_of >= (median or 0) >= (all_of or 0)
        # By definition: so many runs have a point at most as dear and at least as good.
        for place, cost in enumerate(found["cost"]):
            for level in LEVELS:
                if (value := found[level][place]) is not None:
                    reached = sum(any(c <= cost and a >= value for c, a in front) for front in fronts)
                    assert reached >= needed(level, len(fronts))


def test_half_of_an_even_number_is_enough():
    assert levels_of([0.1, 0.4, 0.2, 0.3]) == {"any": 0.4, "median": 0.3, "all": 0.1}
    assert levels_of([0.1, None, None])["median"] is None


def test_curves_are_compared_as_far_as_each_has_got():
    found = band([[(1, 0.1), (3, 0.5)], [(2, 0.2), (9, 0.9)]])
    assert found == {
        "at": [1, 2, 3],
        "any": [0.1, 0.2, 0.5],
        "median": [0.1, 0.2, 0.5],
        "all": [None, 0.1, 0.2],
    }
    assert band([[(1, 0.1)], []])["at"] == []


@pytest.mark.parametrize("runs", [1, 2, 3, 7])
def test_levels_ask_for_one_half_and_all(runs):
    assert [needed(level, runs) for level in LEVELS] == [1, (runs + 1) // 2, runs]


def test_arms_are_compared_at_the_cost_by_which_all_reports_go() -> None:
    """MACs where they are an objective, in whatever order a study names them."""
    levels = {"any": 0.9, "median": 0.8, "all": 0.7}
    attained = {name: {"cost": [1e6], **{k: [v] for k, v in levels.items()}} for name in ("macs", "n_params")}
    arms = [{"name": "a", "runs": ["one", "two"], "hypervolume": levels, "attainment": attained}]
    for names in (("val_accuracy", "n_params", "macs"), ("val_accuracy", "macs", "n_params")):
        axes = [OBJECTIVES[name].describe() for name in names]
        _, _, table, _ = _arms({"objectives": axes, "arms": arms})
        assert list(table.columns[0].cells)[1] == "accuracy with at most 1.00 M MACs"
