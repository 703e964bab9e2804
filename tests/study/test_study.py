import math
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from fake_world import (
    ASSISTANT_MACS,
    ASSISTANTS,
    IDENTITY,
    REFERENCE,
    TRIAL_MACS,
    FakeWorld,
    assisted,
    drive,
    drive_in_parallel,
    joint,
    made_up,
    make_spec,
    make_study,
    plain,
    reasons,
    states,
    student,
)
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from naskd.spec.clock import FakeClock
from naskd.spec.design import DistillationSpec, KnowledgeTerm, StageSpec, TrialConfig
from naskd.spec.errors import InputError, RunError
from naskd.spec.study import BudgetSpec, ExecutionSpec, LimitsSpec
from naskd.study import drivers as drivers_module
from naskd.study import stalls
from naskd.study import study as study_module
from naskd.study.leases import owner_id
from naskd.study.ledger import booked_artifacts
from naskd.study.observer import SnapshotObserver
from naskd.study.record import run_record
from naskd.study.shared_networks import MAX_BLOCKED
from naskd.study.snapshot import Snapshot
from naskd.study.stalls import PATIENCE
from naskd.study.storage import open_storage
from naskd.study.study import Study
from naskd.trials.jobs import TrialResult

DEAD = owner_id().rsplit(":", 2)[0] + ":4194999:1"


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """A journal waits for the disk at each of its thousand entries here; no test pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=["memory", "journal"])
def reopen(request, tmp_path):
    """A function that opens the ledger as a new process would; in memory they are the same object."""
    if request.param == "memory":
        storage = InMemoryStorage()
        return lambda: storage
    return lambda: open_storage(request.param, tmp_path, writing=True)


# --- what counts -----------------------------------------------------------------------------------------------


def test_the_budget_counts_what_was_trained_whether_it_succeeded_or_not(reopen):
    spec = make_spec(8, limits=LimitsSpec(max_macs=60_000))
    study = make_study(spec, reopen(), space=plain)
    trained = 0
    while (job := study.ask()) is not None:
        if job.kind == "trial":
            trained += 1
        result = study.facts.work(job)
        if job.kind == "trial" and trained % 3 == 0:
            result = TrialResult("failed", job.seed, reason="loss is not finite", spent_macs=TRIAL_MACS)
        study.tell(job, result)
    found = states(study)
    assert trained == 8 == found.count("COMPLETE") + found.count("FAIL")
    assert found.count("FAIL") == 2
    assert found.count("PRUNED") == len(found) - 8 > 0, "the test wants designs over the limit"
    assert study.finished
    assert study.end_reason == "all 8 trials done"
    assert study.ask() is None
    assert study.train_macs == 8 * TRIAL_MACS


def test_the_budget_of_training_macs_counts_trials_and_assistants_but_not_the_teacher():
    spec = make_spec(budget=BudgetSpec(train_macs=ASSISTANT_MACS + 5 * TRIAL_MACS))
    study = make_study(spec, space=assisted)
    drive(study)
    assert states(study) == ["COMPLETE"] * 5
    assert study.train_macs == ASSISTANT_MACS + 5 * TRIAL_MACS
    assert "training MACs are spent" in study.end_reason


def test_the_budget_of_seconds_covers_all_sessions():
    clock = FakeClock()
    storage, world = InMemoryStorage(), FakeWorld()
    spec = make_spec(budget=BudgetSpec(seconds=10))
    first = make_study(spec, storage, world, clock=clock)
    clock.sleep(2.0)
    drive(first, 5)
    assert not first.finished
    clock.sleep(9000.0)
    # 2 s so far, whatever the trials say that they took; a new session has 8 s left.
    second = make_study(spec, storage, world, clock=clock)
    clock.sleep(7.5)
    assert not second.finished
    clock.sleep(1.0)
    assert second.finished
    assert second.ask() is None
    assert "10 s are over" in second.end_reason


def test_the_time_that_is_left_leaves_out_teachers_of_earlier_sessions():
    clock, storage, world = FakeClock(), InMemoryStorage(), FakeWorld()
    took = world.work
    world.work = lambda job: replace(took(job), wall_seconds=100.0 if job.kind == "artifact" else 1.0)

    def session(trials):
        seen = []
        study = make_study(
            make_spec(10), storage, world, space=plain, clock=clock, observers=[SnapshotObserver(seen.append)]
        )
        while len(done := [s for s in states(study) if s == "COMPLETE"]) < trials:
            job = study.ask()
            clock.sleep(100.0 if job.kind == "artifact" else 1.0)
            study.tell(job, world.work(job))
        return seen[-1], len(done)

    session(2)
    last, done = session(5)
    assert done == 5
    assert last.seconds == 105.0
    assert last.seconds_left == 5.0


def test_trials_at_one_time_use_up_their_seconds_once():
    """A search of four workers has taken as long as its clock says, and not as long as all its trials together."""
    clock, storage = FakeClock(), InMemoryStorage()
    spec = make_spec(budget=BudgetSpec(seconds=10), teacher=None)
    first = make_study(spec, storage, space=plain, clock=clock)
    jobs = [first.ask() for _ in range(4)]
    clock.sleep(5.0)
    for job in jobs:
        first.tell(job, replace(first.facts.work(job), wall_seconds=5.0))
    first.renew()
    second = make_study(spec, storage, space=plain, clock=clock)
    clock.sleep(4.5)
    assert not second.finished
    clock.sleep(1.0)
    assert second.finished


@pytest.mark.parametrize("status", ["complete", "failed", "stopped"])
def test_states_of_told_trials(status):
    study = make_study(space=plain)
    study.tell(job := study.ask(), study.facts.work(job))
    job = study.ask()
    result = replace(made_up(job, study.facts.design_cost(job.config)), status=status, reason="why")
    study.tell(job, result)
    trial = study.optuna_study.get_trials(deepcopy=False)[int(job.job_id)]
    assert trial.state.name == {"complete": "COMPLETE", "failed": "FAIL", "stopped": "PRUNED"}[status]
    assert trial.user_attrs["reason"] == "why"
    assert TrialResult.from_dict(trial.user_attrs["result"]) == result
    assert not trial.intermediate_values, "intermediate values break TPE with several objectives"


@pytest.mark.parametrize(
    "metrics",
    [
        {"val_accuracy": math.nan, "macs": 10},
        {"val_accuracy": math.inf, "macs": 10},
        {"macs": 10},
        {},
    ],
)
def test_a_result_without_a_finite_value_fails_with_a_reason_and_the_study_goes_on(metrics, reopen):
    study = make_study(make_spec(3), reopen(), space=plain)
    study.tell(job := study.ask(), study.facts.work(job))
    job = study.ask()
    study.tell(job, TrialResult("complete", job.seed, metrics=metrics))
    drive(study)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "objective val_accuracy: " in reasons(study)[0]
    assert "no finite number" in reasons(study)[0]
    again = make_study(make_spec(3), reopen(), study.facts, space=plain)
    assert again.finished


def test_telling_twice_or_what_was_never_asked_raises():
    study = make_study(space=plain)
    teacher = study.ask()
    result = study.facts.work(teacher)
    study.tell(teacher, result)
    with pytest.raises(ValueError, match="told already"):
        study.tell(teacher, result)
    job = study.ask()
    study.tell(job, study.facts.work(job))
    with pytest.raises(ValueError, match=f"job {job.job_id} is not running"):
        study.tell(job, study.facts.work(job))


def test_jobs_carry_the_horizon_and_a_seed_that_depends_on_the_design_alone():
    first, second = make_study(space=plain), make_study(make_spec(seed=1), space=plain)
    drive(first, 1)
    drive(second, 1)
    job = first.ask()
    assert (job.until_epoch, job.config.training.epochs) == (2, 2)
    fixed = make_spec(warm_start=({"width": 5, "depth": 2},))
    jobs = []
    for spec in (fixed, replace(fixed, warm_start=({"width": 6, "depth": 1}, {"width": 5, "depth": 2}))):
        study = make_study(spec, space=plain)
        drive(study, len(spec.warm_start))
        jobs.append(study.ask())
    assert jobs[0].config == jobs[1].config
    assert jobs[0].seed == jobs[1].seed
    assert jobs[0].job_id != jobs[1].job_id


# --- what is turned away ---------------------------------------------------------------------------------------


def _pruned_by_the_space(trial):
    trial.suggest_int("width", 1, 64)
    raise optuna.TrialPruned("too odd")


def _with_terms(*terms, block="basic", **taught):
    def space(trial):
        stage = StageSpec(block, 1, trial.suggest_int("width", 1, 64))
        return TrialConfig(replace(student(1), stages=(stage,)), DistillationSpec(terms=terms, **taught))

    return space


def _invalid(trial):
    return TrialConfig(student(width=-trial.suggest_int("width", 1, 64)))


def _silent(trial):
    trial.suggest_int("width", 1, 64)
    raise ValueError


TURNED_AWAY = {
    "over max_macs": (plain, make_spec(limits=LimitsSpec(max_macs=9)), "over max_macs: "),
    "under min_macs": (plain, make_spec(limits=LimitsSpec(min_macs=10**9)), "under min_macs: "),
    "over max_params": (plain, make_spec(limits=LimitsSpec(max_params=1)), "over max_params: "),
    "invalid": (
        _invalid,
        make_spec(),
        "invalid: StageSpec: width: Input should be greater than or equal to 1",
    ),
    "refused without a word": (_silent, make_spec(), "invalid: ValueError"),
    "pruned": (_pruned_by_the_space, make_spec(), "pruned by the space: too odd"),
}


@pytest.mark.parametrize("case", TURNED_AWAY)
def test_designs_that_are_turned_away_are_pruned_with_a_reason_and_the_study_ends(case):
    space, spec, reason = TURNED_AWAY[case]
    spec = replace(spec, budget=replace(spec.budget, max_turned_away=7))
    world = FakeWorld()
    study = make_study(spec, world=world, space=space)
    drive(study)
    assert states(study) == ["PRUNED"] * 7
    assert all(reason in found for found in reasons(study))
    assert study.finished
    assert "7 designs in a row were turned away" in study.end_reason
    assert reason.partition(":")[0] in study.end_reason
    assert world.log in ([], ["artifact teacher-id"]), "nothing was trained but the teacher"
    assert study.train_macs == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"width": 1000}, "out of range: width = 1000"),
        ({"width": 3, "kind": "three"}, "invalid: "),
        ({"width": "wide"}, "invalid: "),
    ],
)
def test_a_warm_start_out_of_range_is_turned_away(given, reason):
    def space(trial):
        trial.suggest_categorical("kind", ["one", "two"])
        return plain(trial)

    study = make_study(make_spec(2, warm_start=(given, {"width": 7, "depth": 1})), space=space)
    drive(study)
    assert states(study)[:2] == ["PRUNED", "COMPLETE"]
    assert reason in reasons(study)[0]
    assert study.optuna_study.trials[1].params["width"] == 7, "the next one runs as given"


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "nsga3", "gp", "random"])
def test_a_small_space_ends_when_it_is_exhausted(sampler, monkeypatch):
    monkeypatch.setattr(stalls, "FEWEST_DRAWS", 100)

    def space(trial):
        return TrialConfig(student(trial.suggest_int("width", 1, 3)))

    spec = make_spec(100)
    study = make_study(replace(spec, sampler=replace(spec.sampler, name=sampler)), space=space)
    drive(study)
    complete = [t for t in study.optuna_study.trials if t.state is TrialState.COMPLETE]
    assert sorted(t.params["width"] for t in complete) == [1, 2, 3], "each design once, and all of them"
    assert study.finished
    assert study.end_reason.startswith("all designs of the space that can be trained were tried: ")
    assert not study.fell_short
    assert len(states(study)) <= 3 + 3 * PATIENCE, "what repeats itself is not asked for ever"


def test_only_designs_that_were_turned_away_in_a_row_end_a_study():
    designs = tuple({"width": width, "depth": 1} for width in (60, 1, 61, 2, 62, 3, 63, 4))
    spec = make_spec(4, warm_start=designs, limits=LimitsSpec(max_macs=1000))
    study = make_study(replace(spec, budget=BudgetSpec(trials=4, max_turned_away=2)), space=plain)
    drive(study)
    assert states(study) == ["PRUNED", "COMPLETE"] * 4
    assert study.end_reason == "all 4 trials done"


def test_a_design_that_is_running_is_not_begun_again():
    given = {"width": 5, "depth": 2}
    study = make_study(make_spec(3, warm_start=(given, given)), space=plain)
    drive(study, 1)
    first, second = study.ask(), study.ask()
    assert states(study)[:3] == ["RUNNING", "PRUNED", "RUNNING"]
    assert "duplicate" in reasons(study)[1]
    assert second.config != first.config


def test_designs_that_differ_in_what_is_unused_are_duplicates():
    def space(trial):
        trial.suggest_int("kd.temperature", 1, 8)
        return TrialConfig(replace(student(4), stages=(replace(student(4).stages[0], expansion=3.0),)))

    spec = make_spec(5)
    study = make_study(replace(spec, budget=replace(spec.budget, max_turned_away=5)), space=space)
    drive(study)
    assert states(study) == ["COMPLETE"] + ["PRUNED"] * 5
    assert all("is trial 0" in reason for reason in reasons(study)[1:])


def test_a_failed_design_is_not_tried_again():
    def space(trial):
        return TrialConfig(student(trial.suggest_int("width", 1, 2)))

    spec = make_spec(10)
    study = make_study(replace(spec, budget=replace(spec.budget, max_turned_away=10)), space=space)
    drive(study, 1)
    while (job := study.ask()) is not None:
        study.tell(job, TrialResult("failed", job.seed, reason="out of memory"))
    assert states(study).count("FAIL") == 2


# --- broken spaces ---------------------------------------------------------------------------------------------


def _raises(trial):
    trial.suggest_int("width", 1, 2)
    raise KeyError("depth")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (_raises, "raised KeyError: 'depth'"),
        (
            lambda trial: {"width": trial.suggest_int("width", 1, 2)},
            "returned dict; it must return a TrialConfig",
        ),
        (lambda trial: None, "returned NoneType"),
        (lambda trial: sys.exit(0), r"called sys\.exit\(0\)"),
        (_with_terms(block="basics"), "unknown block 'basics'.*did you mean 'basic'.*study's modules"),
        (_with_terms(KnowledgeTerm("logits"), scheme="offlin"), "unknown scheme 'offlin'"),
        (
            _with_terms(KnowledgeTerm("logits"), teachers=("techer",)),
            "unknown teacher 'techer'; known: teacher;",
        ),
    ],
)
def test_a_space_that_raises_or_returns_something_else_ends_the_study(space, message):
    study = make_study(space=space)
    drive(study, 1)
    with pytest.raises(InputError, match=message):
        study.ask()
    assert states(study) == ["FAIL"]
    assert re.search(message, reasons(study)[0])
    study.release()
    assert states(study) == ["FAIL"], "what the space cannot do is not asked of it again"


# --- artifacts -------------------------------------------------------------------------------------------------


def test_the_teacher_comes_first_and_each_assistant_is_made_once_and_booked_once(reopen):
    world = FakeWorld()
    study = make_study(make_spec(5), reopen(), world, space=assisted)
    drive(study)
    assert world.log[0] == "artifact teacher-id"
    assert [entry for entry in world.log if entry.startswith("artifact")] == world.log[:2]
    assert states(study) == ["COMPLETE"] * 5
    booked = booked_artifacts(study.optuna_study.user_attrs)
    assert sorted(entry["label"] for entry in booked.values()) == ["assistant", "teacher"]
    assert study.train_macs == ASSISTANT_MACS + 5 * TRIAL_MACS
    again = make_study(make_spec(8), reopen(), world, space=assisted)
    assert again.train_macs == study.train_macs
    drive(again)
    assert len([entry for entry in world.log if entry.startswith("artifact")]) == 2
    assert again.train_macs == ASSISTANT_MACS + 8 * TRIAL_MACS


def test_what_another_run_has_made_is_booked_here_and_made_again_only_when_it_is_gone():
    world = FakeWorld()
    drive(make_study(make_spec(2), world=world, space=assisted))
    storage = InMemoryStorage()
    other = make_study(make_spec(2), storage, world, space=assisted)
    drive(other)
    assert other.train_macs == ASSISTANT_MACS + 2 * TRIAL_MACS, (
        "the cost of a study does not depend on others"
    )
    world.made.clear()
    drive(again := make_study(make_spec(3), storage, world, space=assisted))
    assert len(world.made) == 2
    assert again.train_macs == ASSISTANT_MACS + 3 * TRIAL_MACS, "booked once"
    assert booked_artifacts(other.optuna_study.user_attrs).keys() == world.made


@pytest.mark.parametrize("workers", [2, 3, 12])
@pytest.mark.parametrize("space", [assisted, joint, plain])
def test_parallel_workers_share_artifacts_and_never_exceed_the_budget(workers, space):
    world = FakeWorld()
    study = make_study(make_spec(15), world=world, space=space)
    drive_in_parallel(study, workers)
    assert states(study).count("COMPLETE") == 15
    assert set(states(study)) <= {"COMPLETE", "PRUNED"}
    artifacts = [entry for entry in world.log if entry.startswith("artifact")]
    assert len(set(artifacts)) == len(artifacts)
    assert artifacts[0] == "artifact teacher-id"


def test_while_an_artifact_is_made_only_a_few_designs_wait_for_it():
    study = make_study(make_spec(100), space=assisted)
    teacher = study.ask()
    assert [study.ask() for _ in range(5)] == [None] * 5, "they all wait for the teacher"
    assert not study.finished
    assert states(study) == ["RUNNING"] * MAX_BLOCKED
    study.tell(teacher, study.facts.work(teacher))
    assistant = study.ask()
    assert assistant.kind == "artifact"
    assert study.ask() is None
    study.tell(assistant, study.facts.work(assistant))
    released = {study.ask().job_id for _ in range(MAX_BLOCKED)}
    assert released == {str(n) for n in range(MAX_BLOCKED)}, "all are released, and before anything new"


def test_with_the_budget_spent_on_waiting_designs_nothing_more_is_proposed():
    study = make_study(make_spec(1), space=assisted)
    teacher = study.ask()
    study.tell(teacher, study.facts.work(teacher))
    assistant = study.ask()
    assert study.ask() is None
    assert states(study) == ["RUNNING"]
    assert not study.finished, "the waiting design is still to come"
    study.tell(assistant, study.facts.work(assistant))
    job = study.ask()
    assert job.job_id == "0"
    study.tell(job, study.facts.work(job))
    assert study.finished


def test_a_teacher_that_cannot_be_made_ends_the_study():
    study = make_study()
    teacher = study.ask()
    assert (teacher.kind, teacher.config) == ("artifact", None)
    with pytest.raises(RunError, match="the teacher could not be made: no such file"):
        study.tell(teacher, TrialResult("failed", 0, reason="no such file"))
    assert states(study) == []


def test_an_assistant_that_cannot_be_made_turns_away_the_designs_that_want_it():
    class Broken(FakeWorld):
        def work(self, job):
            if job.kind == "artifact" and job.job_id != "teacher-id":
                self.log.append(f"artifact {job.job_id}")
                assert len(self.log) < 50, "what cannot be made is asked for again and again"
                return TrialResult("failed", 0, reason="loss is not finite", spent_macs=7)
            return super().work(job)

    world, storage = Broken(), InMemoryStorage()
    study = make_study(make_spec(6), storage, world=world)
    drive(study)
    complete = [t for t in study.optuna_study.trials if t.state is TrialState.COMPLETE]
    assert len(complete) == 6
    assert not any(t.params["kd.use"] and t.params["kd.assistant"] != "none" for t in complete)
    failed = [entry for entry in world.log if entry.startswith("artifact")][1:]
    assert 1 <= len(failed) == len(set(failed)) <= len(ASSISTANTS), "each is tried once"
    assert "the assistant could not be made: loss is not finite" in reasons(study)
    assert set(states(study)) == {"COMPLETE", "PRUNED"}
    spent = 6 * TRIAL_MACS + 7 * len(failed)
    again = make_study(make_spec(6), storage, world=world)
    assert study.train_macs == again.train_macs == spent, "what was tried in vain was trained all the same"
    record = run_record(study.optuna_study, study.spec.objectives)
    assert (record["train_macs"], record["assistants"]) == (spent, [])


# --- resume ----------------------------------------------------------------------------------------------------


def test_a_resume_goes_on_with_numbers_and_designs(reopen):
    world = FakeWorld()
    drive(make_study(make_spec(6), reopen(), world))
    resumed = make_study(make_spec(12), reopen(), world)
    before = len(states(resumed))
    drive(resumed)
    found = [t for t in resumed.optuna_study.trials if t.state is TrialState.COMPLETE]
    assert [t.number for t in resumed.optuna_study.trials] == list(range(len(states(resumed))))
    assert len(found) == 12
    assert len({t.user_attrs["config_id"] for t in found}) == 12
    first, second = resumed.optuna_study.trials[:before], resumed.optuna_study.trials[before:]
    assert not {str(t.params) for t in first} & {str(t.params) for t in second}, "the sampler replays nothing"
    assert resumed.train_macs == 12 * TRIAL_MACS + ASSISTANT_MACS * sum(
        a["label"] == "assistant" for a in booked_artifacts(resumed.optuna_study.user_attrs).values()
    )


def test_a_finished_study_stays_finished(reopen):
    world = FakeWorld()
    drive(make_study(make_spec(3), reopen(), world))
    log = list(world.log)
    drive(again := make_study(make_spec(3), reopen(), world))
    assert world.log == log
    assert again.finished


def test_a_duplicate_of_an_earlier_session_is_turned_away(reopen):
    spec = make_spec(2, warm_start=({"width": 5, "depth": 2},))
    drive(study := make_study(spec, reopen(), space=plain))
    study.optuna_study.enqueue_trial({"width": 5, "depth": 2})
    resumed = make_study(replace(spec, budget=BudgetSpec(trials=3)), reopen(), study.facts, space=plain)
    drive(resumed)
    assert states(resumed) == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert "is trial 0" in reasons(resumed)[2]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"epochs": 3}, "epochs: 2 -> 3"),
        ({"files": {"space.py": "def"}}, 'files.space.py: "abc" -> "def"'),
        ({"teacher_hash": "t2"}, 'teacher_hash: "t1" -> "t2"'),
        ({"data_hash": "d2"}, 'data_hash: "d1" -> "d2"'),
    ],
)
def test_a_resume_under_another_identity_is_refused_with_the_difference(change, line, reopen):
    drive(make_study(make_spec(1), reopen(), space=plain))
    with pytest.raises(InputError) as caught:
        make_study(make_spec(2), reopen(), space=plain, identity={**IDENTITY, **change})
    assert line in str(caught.value)
    others = {"epochs", "files", "teacher_hash", "data_hash"} - set(change)
    assert not any(f"{name}" in str(caught.value) for name in others), "only what differs is told"


def test_the_reference_point_is_fixed_when_the_study_is_created(reopen):
    drive(study := make_study(make_spec(3), reopen()))
    volume = study.hypervolume()
    spec = make_spec(3)
    resumed = Study(
        spec,
        joint,
        reopen(),
        study.facts,
        identity=IDENTITY,
        reference_point={"val_accuracy": 0, "macs": 9e9},
    )
    assert resumed.reference_point == {name: REFERENCE[name] for name in spec.objectives}
    assert resumed.hypervolume() == volume > 0


def test_without_a_reference_point_a_study_can_only_be_resumed():
    with pytest.raises(RunError, match="no study named 'fake'"):
        Study(make_spec(), joint, InMemoryStorage(), FakeWorld(), identity=IDENTITY)


# --- orphans and leases ----------------------------------------------------------------------------------------


def _orphan(storage, world, owner=DEAD, spec=None, space=plain, monkeypatch=None):
    """A study one of whose trials was running when its driver, `owner`, stopped."""
    monkeypatch.setattr(study_module, "owner_id", lambda: owner)
    study = make_study(spec or make_spec(4), storage, world, space=space)
    drive(study, 2)
    job = study.ask()
    monkeypatch.undo()
    return study, job


def test_the_trial_of_a_dead_driver_is_run_again_once(reopen, monkeypatch):
    world = FakeWorld()
    _, lost = _orphan(reopen(), world, monkeypatch=monkeypatch)
    resumed = make_study(make_spec(4), reopen(), world, space=plain)
    assert states(resumed) == ["COMPLETE", "FAIL", "WAITING"]
    assert "run again" in reasons(resumed)[1]
    again = make_study(make_spec(4), reopen(), world, space=plain)
    assert states(again) == ["COMPLETE", "FAIL", "WAITING"], "opening once more adds nothing"
    drive(again)
    trials = again.optuna_study.trials
    assert states(again) == ["COMPLETE", "FAIL"] + ["COMPLETE"] * 3
    assert trials[2].user_attrs["retry_of"] == 1
    assert trials[2].user_attrs["config"] == trials[1].user_attrs["config"] == lost.config.to_dict()
    assert trials[2].user_attrs["seed"] == trials[1].user_attrs["seed"], "the same bits again"


def test_killed_between_the_retry_and_the_end_of_the_orphan_there_is_one_retry(monkeypatch):
    storage, world = InMemoryStorage(), FakeWorld()
    study, _ = _orphan(storage, world, monkeypatch=monkeypatch)
    orphan = study.optuna_study.trials[1]
    study.optuna_study.enqueue_trial(orphan.params, user_attrs={"retry_of": 1, "retries": 1})
    resumed = make_study(make_spec(4), storage, world, space=plain)
    assert states(resumed) == ["COMPLETE", "FAIL", "WAITING"]


def test_the_trial_of_a_living_driver_is_left_alone(reopen):
    world = FakeWorld()
    first = make_study(make_spec(5), reopen(), world, space=plain)
    drive(first, 2)
    job = first.ask()
    second = make_study(make_spec(5), reopen(), world, space=plain)
    assert states(second)[1] == "RUNNING"
    mine = second.ask()
    assert mine.job_id != job.job_id
    assert mine.config != job.config
    second.optuna_study.enqueue_trial(first.optuna_study.trials[1].params)
    second.ask()
    assert "is trial 1" in reasons(second)[3], "what the other driver trains is not begun here"
    second.release()
    assert states(second)[1] == "RUNNING"
    first.tell(job, world.work(job))
    assert states(second)[1] == "COMPLETE"


def test_a_design_whose_process_dies_every_time_is_given_up(reopen, monkeypatch):
    world = FakeWorld()
    spec = make_spec(3, warm_start=({"width": 5, "depth": 2},))
    for _ in range(ExecutionSpec.retries + 1):
        monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
        study = make_study(spec, reopen(), world, space=plain)
        drive(study, 0 if world.made else 1)
        assert study.ask().config.architecture.stages[0].width == 5
    monkeypatch.undo()
    final = make_study(spec, reopen(), world, space=plain)
    assert states(final) == ["FAIL"] * (ExecutionSpec.retries + 1)
    assert f"its process died {ExecutionSpec.retries + 1} times" in reasons(final)[-1]
    drive(final)
    assert states(final)[ExecutionSpec.retries + 1 :] == ["COMPLETE"] * 2, "it counts as one failed trial"


def test_a_training_that_gets_further_at_each_start_ends_however_often_it_is_interrupted(reopen, monkeypatch):
    world, metrics = FakeWorld(), {"val_accuracy": 0.5}
    spec = make_spec(1, warm_start=({"width": 5, "depth": 2},), epochs=40)
    for start in range(2 * ExecutionSpec.retries + 2):
        monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
        study = make_study(spec, reopen(), world, space=plain)
        drive(study, 0 if world.made else 1)
        job = study.ask()
        for epoch in range(max(1, start), start + 2):
            study.report(job, epoch, metrics)
    monkeypatch.undo()
    drive(final := make_study(spec, reopen(), world, space=plain))
    assert states(final).count("COMPLETE") == 1
    assert final.optuna_study.trials[-1].user_attrs["retries"] == 1, "the first one counts: it was no retry"


def test_a_training_that_gets_no_further_is_given_up(reopen, monkeypatch):
    world = FakeWorld()
    spec = make_spec(1, warm_start=({"width": 5, "depth": 2},))
    for _ in range(ExecutionSpec.retries + 1):
        monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
        study = make_study(spec, reopen(), world, space=plain)
        drive(study, 0 if world.made else 1)
        study.report(study.ask(), 1, {"val_accuracy": 0.5})
    monkeypatch.undo()
    final = make_study(spec, reopen(), world, space=plain)
    assert f"its process died {ExecutionSpec.retries + 1} times without getting further" in reasons(final)[-1]


@pytest.mark.parametrize("kind", ["trial", "artifact"])
def test_a_full_disk_ends_the_search_and_costs_no_design(kind):
    """Not a trial, and no designs that want an assistant, which nobody would try again."""
    storage, world = InMemoryStorage(), FakeWorld()
    world.made.add("teacher-id")
    spec = make_spec(2)
    study = make_study(spec, storage, world, space=assisted)
    while (job := study.ask()).kind != kind or job.job_id == "teacher-id":
        study.tell(job, world.work(job))
    full = TrialResult("failed", job.seed, "OSError: [Errno 28] No space left on device: 'x'", disk_full=True)
    with pytest.raises(RunError, match="No space left on device: 'x'; nothing is damaged: make room"):
        study.tell(job, full)
    study.release()
    drive(again := make_study(spec, storage, world, space=assisted))
    assert states(again).count("COMPLETE") == 2
    assert not any("could not be made" in reason for reason in reasons(again))


def test_waiting_for_a_network_is_never_why_a_process_died(monkeypatch):
    storage, world = InMemoryStorage(), FakeWorld()
    world.made.add("teacher-id")
    spec = make_spec(1, warm_start=({"width": 5, "kd.temperature": 2},))
    for _ in range(ExecutionSpec.retries + 5):
        monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
        study = make_study(spec, storage, world, space=assisted)
        assert study.ask().kind == "artifact"
        assert study.ask() is None
        assert states(study)[-1] == "RUNNING", "it waits"
    monkeypatch.undo()
    final = make_study(spec, storage, world, space=assisted)
    drive(final)
    assert states(final)[-1] == "COMPLETE"
    assert final.optuna_study.trials[-1].params == {"width": 5, "kd.temperature": 2}


def test_a_running_trial_with_a_result_is_completed_on_resume(reopen, monkeypatch):
    world = FakeWorld()
    study, job = _orphan(reopen(), world, monkeypatch=monkeypatch)
    result = made_up(job, world.design_cost(job.config))
    study._ledger.write(1, "result", result.to_dict())
    resumed = make_study(make_spec(2), reopen(), world, space=plain)
    assert states(resumed) == ["COMPLETE", "COMPLETE"]
    assert resumed.optuna_study.trials[1].values == [result.metrics["val_accuracy"], result.metrics["macs"]]
    assert resumed.finished
    assert resumed.train_macs == 2 * TRIAL_MACS


def test_a_warm_start_that_died_inside_its_space_keeps_all_its_values(monkeypatch):
    class Killed(BaseException):
        pass

    def dies(trial):
        trial.suggest_int("width", 1, 64)
        raise Killed

    storage, world = InMemoryStorage(), FakeWorld()
    spec = make_spec(1, warm_start=({"width": 9, "depth": 3},))
    monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
    study = make_study(spec, storage, world, space=dies)
    drive(study, 1)
    with pytest.raises(Killed):
        study.ask()
    monkeypatch.undo()
    drive(final := make_study(spec, storage, world, space=plain))
    assert final.optuna_study.trials[-1].params == {"width": 9, "depth": 3}
    assert states(final) == ["FAIL", "COMPLETE"]


def test_a_trial_that_its_driver_has_not_signed_yet_is_given_time():
    storage, world = InMemoryStorage(), FakeWorld()
    first = make_study(make_spec(4), storage, world, space=plain)
    drive(first, 2)
    trial = first.optuna_study.ask()

    class Signing(FakeClock):
        def sleep(self, seconds):
            super().sleep(seconds)
            trial.set_user_attr("owner", study_module.owner_id())

    clock = Signing()
    second = make_study(make_spec(4), storage, world, space=plain, clock=clock)
    assert clock.monotonic() == drivers_module.CLAIM_SECONDS
    assert states(second)[trial.number] == "RUNNING"


def test_a_trial_that_nobody_signs_is_an_orphan():
    storage, world = InMemoryStorage(), FakeWorld()
    first = make_study(make_spec(2), storage, world, space=plain)
    drive(first, 2)
    first.optuna_study.ask()
    second = make_study(make_spec(2), storage, world, space=plain)
    assert states(second) == ["COMPLETE", "FAIL"], "it had no values yet that could be run again"
    drive(second)
    assert states(second) == ["COMPLETE", "FAIL", "COMPLETE"]


def test_release_gives_back_what_was_not_told():
    storage, world = InMemoryStorage(), FakeWorld()
    study = make_study(make_spec(12), storage, world, space=assisted)
    drive(study, 3)
    running = study.ask()
    study.release()
    assert states(study) == ["COMPLETE", "FAIL", "WAITING"]
    assert "interrupted" in reasons(study)[1]
    resumed = make_study(make_spec(2), storage, world, space=assisted)
    job = resumed.ask()
    assert job.config == running.config
    assert resumed.optuna_study.trials[2].user_attrs.get("retries") == 0, "an interruption is not a death"
    study.release()
    assert states(study) == ["COMPLETE", "FAIL", "RUNNING"]


# --- looking ---------------------------------------------------------------------------------------------------


def test_snapshots_tell_where_the_study_stands():
    seen: list[Snapshot] = []
    study = make_study(make_spec(5), observers=[SnapshotObserver(seen.append)])
    while (job := study.ask()) is not None:
        study.report(job, 1, {})
        assert seen[-1].epoch == 1
        assert seen[-1].running in ("teacher", "assistant", f"trial {job.job_id}")
        study.tell(job, study.facts.work(job))
    last = seen[-1]
    assert (last.complete, last.failed, last.fraction) == (5, 0, 1.0)
    assert last.train_macs == study.train_macs
    assert last.hypervolume == study.hypervolume()
    accuracies = [t.values[0] for t in study.optuna_study.trials if t.values]
    assert last.best_accuracy == max(accuracies)
    assert last.seconds_left == 0.0
    volumes = [snapshot.hypervolume for snapshot in seen]
    assert volumes == sorted(volumes)


def test_the_ledger_holds_what_a_dashboard_shows():
    drive(study := make_study(make_spec(2), space=plain))
    trial = study.optuna_study.trials[0]
    assert study.optuna_study.metric_names == ["val_accuracy", "macs"]
    assert trial.user_attrs["val_accuracy"] == trial.values[0]
    assert trial.user_attrs["macs"] == trial.values[1]
    assert [d.name for d in study.optuna_study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_the_same_ledger_whatever_the_storage(tmp_path: Path):
    found = []
    for kind in ("memory", "journal", "sqlite"):
        storage = InMemoryStorage() if kind == "memory" else open_storage(kind, tmp_path, writing=True)
        drive(study := make_study(make_spec(6), storage))
        found.append([(t.state, t.params, t.values) for t in study.optuna_study.trials])
    assert found[0] == found[1] == found[2]
