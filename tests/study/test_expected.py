"""What is expected of designs: nearer to the truth than what was measured, most of all on the front."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from fake_world import make_spec, make_study, student
from optuna.storages import InMemoryStorage

from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.study.expected import FEWEST, MOST, expect, expected_accuracies
from naskd.study.record import run_record
from naskd.study.stopping import TrialView

N_VAL = 400


def _true(config: TrialConfig) -> float:
    stage = config.architecture.stages[0]
    return 0.4 + 0.06 * math.log2(stage.width) + 0.02 * stage.depth + 0.05 * bool(config.distillation.terms)


def _seen(n: int, seed: int = 0, luck: float = 0.025) -> list[TrialView]:
    """Measured with luck of the images and of the seed, together so large."""
    draw, found = np.random.default_rng(seed), []
    for number in range(n):
        terms = (KnowledgeTerm("logits", temperature=4.0),) if draw.random() < 0.5 else ()
        config = TrialConfig(
            student(int(draw.integers(2, 64)), int(draw.integers(1, 4))), DistillationSpec(terms)
        )
        found.append(_training(number, config, _true(config) + float(draw.normal(0, luck))))
    return found


def _training(number: int, config: TrialConfig, accuracy: float) -> TrialView:
    macs = 1e4 * config.architecture.stages[0].width ** 2
    curve = tuple({"epoch": e, "val_accuracy": accuracy * (1 - 0.5**e) / (1 - 0.5**4)} for e in range(1, 5))
    return TrialView(number, config, 0, "complete", curve, {"val_accuracy": accuracy, "macs": macs})


def _accuracy(one: TrialView) -> float:
    return one.metrics["val_accuracy"]


def _expected(trainings: Sequence[TrialView], n_val: int = N_VAL) -> dict[int, tuple[float, float]]:
    return expected_accuracies(trainings, ["macs"], n_val)


def _front(seen: Sequence[TrialView]) -> list[TrialView]:
    best, found = -1.0, []
    for one in sorted(seen, key=lambda one: (one.metrics["macs"], -_accuracy(one))):
        if _accuracy(one) > best:
            best = _accuracy(one)
            found.append(one)
    return found


def test_a_cost_of_0_is_a_cost() -> None:
    """Of an objective of the user's, such as how many blocks are of a kind."""
    seen = [replace(one, metrics={**one.metrics, "kinds": float(one.number % 2)}) for one in _seen(40)]
    assert set(expected_accuracies(seen, ["macs", "kinds"], N_VAL)) == {one.number for one in seen}


def test_it_is_nearer_to_the_truth_and_a_front_is_less_too_good() -> None:
    measured, expected = [], []
    for seed in range(4):
        seen = _seen(60, seed)
        found = _expected(seen)
        assert sorted(found) == list(range(60))
        for one in _front(seen):
            measured.append(_accuracy(one) - _true(one.config))
            expected.append(found[one.number][0] - _true(one.config))
    assert fmean(measured) > 0.015, "the winner's curse"
    assert abs(fmean(expected)) < 0.5 * fmean(measured)
    assert fmean(abs(e) for e in expected) < 0.75 * fmean(abs(m) for m in measured)


def test_its_spread_holds_the_truth_mostly() -> None:
    inside = []
    for seed in range(4):
        seen = _seen(60, seed)
        found = _expected(seen)
        inside += [abs(found[o.number][0] - _true(o.config)) < 1.96 * found[o.number][1] for o in seen]
    assert 0.75 < fmean(inside) <= 1


def test_few_images_shrink_more_than_many() -> None:
    seen = _seen(40)

    def moved(n_val: int) -> float:
        found = _expected(seen, n_val)
        return fmean(abs(found[one.number][0] - _accuracy(one)) for one in seen)

    assert moved(100) > moved(1000)


def test_a_design_with_several_seeds_has_one_value_near_their_mean() -> None:
    seen = _seen(30, luck=0.0)
    again = [_training(30 + n, seen[0].config, _accuracy(seen[0]) + 0.06) for n in range(20)]
    found = _expected([*seen, *again], 10_000)
    assert found[0] == pytest.approx(found[49])
    assert found[0][0] > _expected(seen, 10_000)[0][0] + 0.01
    assert found[0][1] < _expected(seen, 10_000)[0][1]


def test_the_same_trainings_say_the_same() -> None:
    assert _expected(_seen(40)) == _expected(_seen(40))


@pytest.mark.parametrize(
    "seen",
    [
        _seen(FEWEST - 1),
        [_training(one.number, one.config, 0.5) for one in _seen(30)],
        [_training(number, _seen(1)[0].config, 0.5 + 0.01 * number) for number in range(30)],
        [_training(number, _seen(1)[0].config, 0.5 + 1e-4 * number) for number in range(MOST + 1)],
    ],
    ids=["few", "all accuracies alike", "one design", "too many"],
)
def test_nothing_is_said_where_nothing_can_be(seen: list[TrialView]) -> None:
    assert _expected(seen) == {}


def test_a_record_has_it_of_each_design_once_nothing_runs() -> None:
    study = make_study(make_spec(24), InMemoryStorage())
    while (job := study.ask()) is not None:
        if job.kind == "trial" and len(study.optuna_study.trials) == 23:
            assert all(t["expected"] is None for t in _record(study)["trials"]), "a trial runs"
        study.tell(job, study.facts.work(job))
    complete = [t for t in _record(study)["trials"] if t["state"] == "COMPLETE"]
    assert len(complete) >= FEWEST
    for trial in complete:
        assert 0 <= trial["expected"]["mean"] <= 1
        assert trial["expected"]["sd"] > 0
    assert any(abs(trial["expected"]["mean"] - trial["val_accuracy"]) > 1e-6 for trial in complete)


def test_nothing_is_expected_of_designs_of_a_later_version() -> None:
    trial = {"number": 0, "replicate_of": None, "config": {"a later key": 1}, "own": None, "expected": None}
    expect(trials := [{**trial, "val_accuracy": 0.5, "macs": 9}], ["macs"], N_VAL)
    assert trials[0]["expected"] is None


def _record(study) -> dict:
    return run_record(study.optuna_study, study.spec.objectives, with_importance=False)
