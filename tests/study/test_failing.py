"""A search of which nothing works ends at once, and goes on once that is mended."""

from dataclasses import replace

import pytest
from fake_world import FakeWorld, make_spec, make_study, plain, states
from optuna.storages import InMemoryStorage

from naskd.spec.study import BudgetSpec
from naskd.study.study import Study
from naskd.trials.jobs import TrialResult

ALIKE = "RuntimeError: {}x64 and 32x10 cannot be multiplied (blocks.py:12)"


def _drive(study: Study, reasons: list[str]) -> int:
    """Train until the end; the first trials fail for these reasons. How many were trained."""
    trained = 0
    while (job := study.ask()) is not None:
        result = study.facts.work(job)
        if job.kind == "trial":
            if trained < len(reasons) and reasons[trained]:
                result = TrialResult("failed", job.seed, reason=reasons[trained], spent_macs=1)
            trained += 1
        study.tell(job, result)
    return trained


def test_first_trials_that_fail_alike_end_the_search_and_it_goes_on_when_that_is_mended() -> None:
    spec, storage, world = make_spec(budget=BudgetSpec(trials=8)), InMemoryStorage(), FakeWorld()
    study = make_study(spec, storage, world, space=plain)
    reasons = [ALIKE.format(n) for n in range(20)]
    assert _drive(study, reasons) == 5 == states(study).count("FAIL")
    assert study.finished
    assert study.fell_short
    assert study.end_reason.startswith(f"the first 5 trials all failed alike: {reasons[4]}; mend that")
    again = make_study(spec, storage, world, space=plain)
    assert not again.finished
    assert _drive(again, []) == 3
    assert again.end_reason == "all 8 trials done"
    assert not again.fell_short


@pytest.mark.parametrize(
    ("reasons", "trained"),
    [
        ([ALIKE] * 4, 8),  # the fifth works
        ([ALIKE] * 3 + ["out of memory"] + [ALIKE] * 4, 8),  # not alike
        (["", *[ALIKE] * 7], 8),  # one that works, and the search is left alone
        ([ALIKE] * 8, 5),
    ],
)
def test_only_first_trials_that_all_fail_alike_end_it(reasons: list[str], trained: int) -> None:
    study = make_study(make_spec(budget=BudgetSpec(trials=8)), space=plain)
    assert _drive(study, reasons) == trained


def test_how_many_is_a_key_of_the_study() -> None:
    spec = make_spec(budget=BudgetSpec(trials=8))
    study = make_study(replace(spec, budget=replace(spec.budget, max_failed=1)), space=plain)
    assert _drive(study, ["out of memory"] * 8) == 1
    assert study.end_reason.startswith("the first trial failed: out of memory; mend that")
