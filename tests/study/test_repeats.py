"""Designs of the front that are trained again: which, when, with what seed, and what becomes of their accuracy."""

from statistics import fmean, stdev

import optuna
import pytest
from fake_world import FakeWorld, drive, drive_in_parallel, make_spec, make_study, plain
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from naskd.spec.design import ArchitectureSpec, StageSpec, TrialConfig
from naskd.spec.objectives import OBJECTIVES
from naskd.spec.pareto import front_mask, front_volume
from naskd.spec.seeds import trial_seed
from naskd.spec.study import BudgetSpec, SamplerSpec
from naskd.study.ledger import REPLICATE
from naskd.study.record import run_record
from naskd.trials.jobs import Decision, TrialResult

OBJ = ("val_accuracy", "macs")


def spec_of(trials=20, seeds=2, **changes):
    budget = BudgetSpec(trials=trials, front_seeds=seeds)
    return make_spec(trials, teacher=None, budget=budget, sampler=SamplerSpec("random"), **changes)


class NoisyWorld(FakeWorld):
    """Accuracy depends on the seed so much that the front is luck."""

    def work(self, job):
        result = super().work(job)
        noise = (job.seed % 10_000) / 1e5
        metrics = {**result.metrics, "val_accuracy": round(0.5 + noise, 6)}
        return TrialResult(**{**vars(result), "metrics": metrics})


def trials_of(study):
    return study.optuna_study.get_trials(deepcopy=False)


def again(study):
    return {t.number: t.user_attrs[REPLICATE] for t in trials_of(study) if REPLICATE in t.user_attrs}


def test_by_default_no_design_is_trained_twice():
    drive(study := make_study(spec_of(20, 1), world=NoisyWorld(), space=plain))
    assert not again(study)


def test_designs_of_the_front_get_further_seeds_from_half_of_the_budget_on():
    drive(study := make_study(spec_of(30), world=NoisyWorld(), space=plain))
    repeats = again(study)
    assert repeats
    assert min(repeats) == 15
    for number, (first, replicate) in repeats.items():
        mine, original = trials_of(study)[number], trials_of(study)[first]
        assert replicate == 1
        assert mine.params == original.params
        assert mine.user_attrs["config_id"] == original.user_attrs["config_id"]
        assert mine.user_attrs["seed"] == trial_seed(study.spec.seed, mine.user_attrs["config_id"], 1)
        assert mine.user_attrs["seed"] != original.user_attrs["seed"]


def test_in_the_end_the_whole_front_has_its_seeds():
    drive(study := make_study(spec_of(60, 3), world=NoisyWorld(), space=plain))
    record = run_record(study.optuna_study, OBJ)
    front = [t for t in record["trials"] if t["on_front"]]
    assert front
    # Of the last trials one may have come to the front when nothing was left to train it again.
    assert all((t["replicates"] or {"n": 1})["n"] == 3 for t in front if t["number"] < 55)


def test_repeats_count_in_the_budget():
    drive(study := make_study(spec_of(30), world=NoisyWorld(), space=plain))
    assert sum(t.state is TrialState.COMPLETE for t in trials_of(study)) == 30
    assert len({t.user_attrs["config_id"] for t in trials_of(study) if t.state is TrialState.COMPLETE}) < 30


def test_the_accuracy_of_a_design_is_the_mean_of_its_trainings():
    drive(study := make_study(spec_of(30), world=NoisyWorld(), space=plain))
    record = run_record(study.optuna_study, OBJ)
    values = {t.number: t.values[0] for t in trials_of(study) if t.state is TrialState.COMPLETE}
    by_number = {t["number"]: t for t in record["trials"]}
    for number, (first, _) in again(study).items():
        found, mine = by_number[first], [values[first], values[number]]
        assert found["val_accuracy"] == pytest.approx(fmean(mine), abs=1e-15)
        assert found["own"]["val_accuracy"] == values[first]
        assert found["replicates"] == {
            "n": 2, "mean": fmean(mine), "sd": stdev(mine), "trials": [first, number],
        }  # fmt: skip
        assert type(found["macs"]) is type(by_number[number]["macs"]), "costs stay what they are"
        assert by_number[number]["val_accuracy"] == values[number]
        assert by_number[number]["replicate_of"] == first
        assert not by_number[number]["on_front"]


def test_front_hypervolume_and_counts_are_those_of_designs():
    drive(study := make_study(spec_of(30), world=NoisyWorld(), space=plain))
    record = run_record(study.optuna_study, OBJ)
    axes = [OBJECTIVES[name] for name in OBJ]
    designs = [t for t in record["trials"] if t["state"] == "COMPLETE" and t["replicate_of"] is None]
    points = [tuple(t[name] for name in OBJ) for t in designs]
    assert [t["on_front"] for t in designs] == front_mask(points, axes).tolist()
    expected = front_volume(points, axes, record["reference_point"])
    assert record["hypervolume"] == pytest.approx(expected, abs=1e-12)
    assert study.hypervolume() == pytest.approx(expected, abs=1e-12)
    assert record["progress"][-1]["hypervolume"] == pytest.approx(expected, abs=1e-12)
    assert record["counts"]["again"] == len(again(study)) == 30 - len(designs)
    # A lucky design that was trained again may have made the hypervolume smaller: it is never what it was not.
    own = {t["number"]: t for t in record["trials"]}
    first = [p for p in record["progress"] if p["trial"] < min(again(study))][-1]
    before = [
        (own[p["trial"]]["own"] or own[p["trial"]])
        for p in record["progress"]
        if p["trial"] <= first["trial"]
    ]
    until = [tuple(t[name] for name in OBJ) for t in before]
    assert first["hypervolume"] == pytest.approx(
        front_volume(until, axes, record["reference_point"]), abs=1e-12
    )


def test_several_workers_do_not_train_the_same_again():
    drive_in_parallel(study := make_study(spec_of(40, 3), world=NoisyWorld(), space=plain), 6)
    done = [
        (t.user_attrs["config_id"], t.user_attrs["seed"])
        for t in trials_of(study)
        if "result" in t.user_attrs
    ]
    assert len(done) == len(set(done)) == 40
    assert len({tuple(found) for found in again(study).values()}) == len(again(study))


def test_no_rule_is_asked_about_them():
    class Stops:
        def decide(self, trial, curve, ledger):
            assert not trial.replicate
            return Decision.CONTINUE if trial.number < 10 else Decision.STOP

    study = make_study(spec_of(30), world=NoisyWorld(), space=plain, stopping=Stops())
    while (job := study.ask()) is not None:
        decision = study.report(job, 1, {"val_accuracy": 0.3})
        assert decision is (
            Decision.STOP if int(job.job_id) >= 10 and not job.replicate else Decision.CONTINUE
        )
        result = study.facts.work(job)
        stopped = decision is Decision.STOP
        study.tell(job, TrialResult(**{**vars(result), "status": "stopped" if stopped else "complete"}))
    assert again(study)
    assert all(trials_of(study)[number].state is TrialState.COMPLETE for number in again(study))


def test_one_that_failed_is_not_tried_for_ever():
    class Failing(NoisyWorld):
        def work(self, job):
            result = super().work(job)
            return TrialResult(**{**vars(result), "status": "failed"}) if job.replicate else result

    drive(study := make_study(spec_of(30), world=Failing(), space=plain))
    repeats = again(study)
    assert repeats
    assert len({tuple(found) for found in repeats.values()}) == len(repeats)
    record = run_record(study.optuna_study, OBJ)
    assert record["counts"]["again"] == 0
    told = {t["number"]: t["failed_again"] for t in record["trials"] if t["failed_again"]}
    assert sorted(n for numbers in told.values() for n in numbers) == sorted(repeats)
    assert all(repeats[n][0] == first for first, numbers in told.items() for n in numbers)


def test_one_whose_process_died_is_trained_as_the_same():
    storage = InMemoryStorage()
    study = make_study(spec_of(30), storage, NoisyWorld(), space=plain)
    while (job := study.ask()) is not None and not job.replicate:
        study.tell(job, study.facts.work(job))
    interrupted = job
    study.release()
    drive(later := make_study(spec_of(30), storage, NoisyWorld(), space=plain))
    same = [t for t in trials_of(later) if t.user_attrs.get("retry_of") == int(interrupted.job_id)]
    assert len(same) == 1
    assert same[0].user_attrs["seed"] == interrupted.seed
    assert same[0].user_attrs[REPLICATE][1] == 1
    whole = make_study(spec_of(30), world=NoisyWorld(), space=plain)
    drive(whole)

    def found(study):
        return sorted(
            (t.user_attrs["config_id"], t.user_attrs["seed"])
            for t in trials_of(study)
            if "result" in t.user_attrs
        )

    first = set(found(whole))
    assert (same[0].user_attrs["config_id"], interrupted.seed) in first


def test_where_all_designs_were_tried_the_rest_of_the_budget_goes_to_further_seeds():
    def few(trial):
        return TrialConfig(ArchitectureSpec((StageSpec("basic", 1, 4 * trial.suggest_int("width", 1, 3)),)))

    drive(study := make_study(spec_of(1000, 2), world=NoisyWorld(), space=few))
    assert study.finished
    record = run_record(study.optuna_study, OBJ)
    assert sum(t["state"] == "COMPLETE" and t["replicate_of"] is None for t in record["trials"]) == 3
    assert all(t["replicates"] for t in record["trials"] if t["on_front"])


def test_a_resume_with_more_seeds_trains_the_front_again():
    storage = InMemoryStorage()
    drive(make_study(spec_of(20, 1), storage, NoisyWorld(), space=plain))
    drive(later := make_study(spec_of(40, 4), storage, NoisyWorld(), space=plain))
    front = [t for t in run_record(later.optuna_study, OBJ)["trials"] if t["on_front"] and t["number"] < 30]
    assert front
    assert all(t["replicates"]["n"] == 4 for t in front)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "ehvi"])
def test_samplers_go_on_beside_repeats(sampler):
    spec = spec_of(40)
    spec = type(spec)(**{**vars(spec), "sampler": SamplerSpec(sampler)})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    drive(study := make_study(spec, world=NoisyWorld(), space=plain))
    assert again(study)
    assert sum(t.state is TrialState.COMPLETE for t in trials_of(study)) == 40
