"""How long a search still takes: where all trials take as long, it is known to the second, at every epoch."""

import math
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from fake_world import ASSISTANT_MACS, TRIAL_MACS, FakeWorld, assisted, make_spec, make_study, plain
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState, create_trial

from naskd.spec.clock import FakeClock
from naskd.spec.study import BudgetSpec
from naskd.study.apart import TimeApart
from naskd.study.ledger import _seconds_of_any
from naskd.study.observer import SnapshotObserver
from naskd.study.snapshot import Snapshot
from naskd.study.study import Study
from naskd.trials.jobs import Job

EPOCH = 3.0


def followed(spec, space) -> tuple[Study, FakeWorld, FakeClock, list[Snapshot]]:
    """A study of a fake world, and all that its snapshots have shown."""
    clock, seen, world = FakeClock(), list[Snapshot](), FakeWorld()
    observers = [SnapshotObserver(seen.append)]
    study = make_study(spec, InMemoryStorage(), world, space=space, clock=clock, observers=observers)
    return study, world, clock, seen


@pytest.mark.parametrize("budget", [BudgetSpec(trials=5), BudgetSpec(train_macs=5 * TRIAL_MACS)])
def test_what_is_done_of_the_running_trial_counts(budget: BudgetSpec) -> None:
    study, world, clock, seen = followed(make_spec(budget=budget), plain)
    trials = 0
    while (job := study.ask()) is not None:
        epochs = max(1, job.until_epoch)
        for epoch in range(1, epochs + 1):
            clock.sleep(EPOCH)
            if job.kind == "trial":
                study.report(job, epoch, {"val_accuracy": 0.5})
                if trials:
                    left = EPOCH * epochs * (5 - trials) - EPOCH * epoch
                    assert seen[-1].seconds_left == pytest.approx(left), f"trial {trials}, epoch {epoch}"
                else:
                    assert math.isnan(seen[-1].seconds_left), "nothing has ended by which it could be known"
        result = world.work(job)
        study.tell(job, replace(result, wall_seconds=EPOCH * epochs))
        trials += job.kind == "trial"
    assert trials == 5
    assert seen[-1].seconds_left == 0.0


def test_two_at_once_count_both() -> None:
    study, world, clock, seen = followed(make_spec(10), plain)
    while (job := study.ask()).kind == "artifact":
        study.tell(job, replace(world.work(job), wall_seconds=0.0))
    jobs = [job, study.ask()]
    for _ in range(2):
        clock.sleep(EPOCH * job.until_epoch)
        for job in jobs:
            study.tell(job, world.work(job))
        jobs = [study.ask(), study.ask()]
    before = seen[-1].seconds_left
    assert before == pytest.approx(3 * EPOCH * job.until_epoch)
    clock.sleep(EPOCH)
    for job in jobs:
        study.report(job, 1, {"val_accuracy": 0.5})
    assert seen[-1].seconds_left == pytest.approx(before - EPOCH)


def taught_later(trial):
    """The first three designs are taught by nobody; then an assistant is wanted."""
    return plain(trial) if trial.number < 3 else assisted(trial)


MACS = 8 * TRIAL_MACS + ASSISTANT_MACS
"""Of eight trials and the assistant that some of them share."""


@pytest.mark.parametrize(
    "budget", [BudgetSpec(trials=8), BudgetSpec(train_macs=MACS), BudgetSpec(seconds=500.0)]
)
def test_it_is_as_of_trials_while_an_assistant_trains(budget: BudgetSpec) -> None:
    """It had grown with every epoch of the assistant, since its time counted as that of trials until it was made."""
    study, world, clock, seen = followed(make_spec(budget=budget), taught_later)
    assistants = trials = 0
    while trials < 8:
        job = study.ask()
        assert job is not None
        if job.label == "assistant":
            assistants += 1
            left = (8 - trials) * 2 * EPOCH
            if budget.train_macs:  # what the assistant takes of the budget is known when it is made
                left += ASSISTANT_MACS / TRIAL_MACS * 2 * EPOCH
            for _ in range(10):
                clock.sleep(EPOCH)
                study.report(job, 1, {"val_accuracy": 0.5})
                if budget.seconds is None:
                    assert seen[-1].seconds_left == pytest.approx(left)
        else:
            clock.sleep(2 * EPOCH)
        study.tell(job, world.work(job))
        trials += job.kind == "trial"
        if budget.seconds is not None:
            assert seen[-1].seconds_left == pytest.approx(budget.seconds - clock.monotonic())
        elif not trials:
            assert math.isnan(seen[-1].seconds_left)
        elif (
            assistants or budget.trials
        ):  # nobody knows of the assistant's share of `train_macs` before it is made
            assert seen[-1].seconds_left == pytest.approx((8 - trials) * 2 * EPOCH)
    assert assistants == 1
    study.release()


def test_time_is_shared_by_those_that_run_at_once() -> None:
    clock = FakeClock()
    apart = TimeApart(clock, 1.0)
    artifact = Job("a", "artifact", None, 0, 0)
    trial = Job("0", "trial", None, 0, 0)
    for running, wanted in (
        ([], 1.0),
        ([artifact], 9.0),
        ([trial], 9.0),
        ([artifact, trial, trial, trial], 11.0),
    ):
        clock.sleep(8.0)
        assert apart.until_now(running) == pytest.approx(wanted)


def test_the_next_session_knows_what_share_of_the_time_a_teacher_had() -> None:
    """It trained beside a trial for 100 s. As if it had been alone, the trials would have taken nothing."""
    clock, storage, world, seen = FakeClock(), InMemoryStorage(), FakeWorld(), list[Snapshot]()

    def session() -> Study:
        observers = [SnapshotObserver(seen.append)]
        return make_study(make_spec(10), storage, world, space=plain, clock=clock, observers=observers)

    first = session()
    jobs = [first.ask(), first.ask()]
    assert [job.kind for job in jobs] == ["artifact", "trial"]
    clock.sleep(100.0)
    for job in jobs:
        first.tell(job, replace(world.work(job), wall_seconds=100.0))
    assert seen[-1].seconds_left == pytest.approx(9 * 50.0)
    second = session()
    second.ask()
    assert (seen[-1].seconds, seen[-1].seconds_left) == pytest.approx((100.0, 9 * 50.0))


def test_of_a_run_that_says_no_time_what_ran_at_once_counts_once() -> None:
    begin = datetime(2026, 1, 1)
    trials = [
        create_trial(state=TrialState.FAIL, user_attrs={"result": {}} if result else {})
        for result in (True, True, True, True, False)
    ]
    for trial, (begun, ended) in zip(trials, [(0, 10), (5, 20), (6, 8), (30, 31), (50, 60)], strict=True):
        trial.datetime_start = begin + timedelta(seconds=begun)
        trial.datetime_complete = begin + timedelta(seconds=ended)
    assert _seconds_of_any(trials) == pytest.approx(21.0)
    assert _seconds_of_any([]) == 0.0
