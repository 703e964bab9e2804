"""What is expected of designs: nearer to the truth than what was measured, most of all on the front."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest
from fake_world import make_spec, make_study, student
from optuna.storages import InMemoryStorage

from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig
from naskd.study.expected import FEWEST, MOST, Seen, expected_accuracies
from naskd.study.record import run_record

N_VAL = 400


def _true(config: TrialConfig) -> float:
    stage = config.architecture.stages[0]
    return 0.4 + 0.06 * math.log2(stage.width) + 0.02 * stage.depth + 0.05 * bool(config.distillation.terms)


def _seen(n: int, seed: int = 0, luck: float = 0.025) -> list[Seen]:
    """Measured with luck of the images and of the seed, together so large."""
    draw, found = np.random.default_rng(seed), []
    for number in range(n):
        terms = (KnowledgeTerm("logits", temperature=4.0),) if draw.random() < 0.5 else ()
        config = TrialConfig(
            student(int(draw.integers(2, 64)), int(draw.integers(1, 4))), DistillationSpec(terms)
        )
        cost = {"macs": 1e4 * config.architecture.stages[0].width ** 2}
        found.append(Seen(number, config, cost, _true(config) + float(draw.normal(0, luck))))
    return found


def _front(seen: Sequence[Seen]) -> list[Seen]:
    best, found = -1.0, []
    for one in sorted(seen, key=lambda one: (one.costs["macs"], -one.accuracy)):
        if one.accuracy > best:
            best = one.accuracy
            found.append(one)
    return found


def test_it_is_nearer_to_the_truth_and_a_front_is_less_too_good() -> None:
    measured, expected = [], []
    for seed in range(4):
        seen = _seen(60, seed)
        found = expected_accuracies(seen, N_VAL)
        assert sorted(found) == list(range(60))
        for one in _front(seen):
            measured.append(one.accuracy - _true(one.config))
            expected.append(found[one.design][0] - _true(one.config))
    assert fmean(measured) > 0.015, "the winner's curse"
    assert abs(fmean(expected)) < 0.5 * fmean(measured)
    assert fmean(abs(e) for e in expected) < 0.75 * fmean(abs(m) for m in measured)


def test_its_spread_holds_the_truth_mostly() -> None:
    inside = []
    for seed in range(4):
        seen = _seen(60, seed)
        found = expected_accuracies(seen, N_VAL)
        inside += [abs(found[o.design][0] - _true(o.config)) < 1.96 * found[o.design][1] for o in seen]
    assert 0.75 < fmean(inside) <= 1


def test_few_images_shrink_more_than_many() -> None:
    seen = _seen(40)

    def moved(n_val: int) -> float:
        found = expected_accuracies(seen, n_val)
        return fmean(abs(found[one.design][0] - one.accuracy) for one in seen)

    assert moved(100) > moved(1000)


def test_a_design_with_several_seeds_has_one_value_near_their_mean() -> None:
    seen = _seen(30, luck=0.0)
    again = [Seen(0, seen[0].config, seen[0].costs, seen[0].accuracy + 0.06) for _ in range(20)]
    found = expected_accuracies([*seen, *again], 10_000)
    assert len(found) == 30
    assert found[0][0] > expected_accuracies(seen, 10_000)[0][0] + 0.01
    assert found[0][1] < expected_accuracies(seen, 10_000)[0][1]


def test_the_same_trainings_say_the_same() -> None:
    assert expected_accuracies(_seen(40), N_VAL) == expected_accuracies(_seen(40), N_VAL)


@pytest.mark.parametrize(
    "seen",
    [
        _seen(FEWEST - 1),
        [Seen(number, one.config, one.costs, 0.5) for number, one in enumerate(_seen(30))],
        [Seen(0, _seen(1)[0].config, {"macs": 1e5}, 0.5 + 0.01 * number) for number in range(30)],
        [Seen(number, _seen(1)[0].config, {"macs": 1e5}, 0.5 + 1e-4 * number) for number in range(MOST + 1)],
    ],
    ids=["few", "all accuracies alike", "one design", "too many"],
)
def test_nothing_is_said_where_nothing_can_be(seen: list[Seen]) -> None:
    assert expected_accuracies(seen, N_VAL) == {}


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


def _record(study) -> dict:
    return run_record(study.optuna_study, study.spec.objectives, with_importance=False)
