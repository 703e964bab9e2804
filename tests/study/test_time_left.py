"""How long a search still takes: where all trials take as long, it is known to the second, at every epoch."""

import math
from dataclasses import replace

import pytest
from fake_world import TRIAL_MACS, FakeWorld, make_spec, make_study, plain
from optuna.storages import InMemoryStorage

from naskd.spec.clock import FakeClock
from naskd.spec.study import BudgetSpec
from naskd.study.observer import SnapshotObserver
from naskd.study.snapshot import Snapshot

EPOCH = 3.0


@pytest.mark.parametrize("budget", [BudgetSpec(trials=5), BudgetSpec(train_macs=5 * TRIAL_MACS)])
def test_what_is_done_of_the_running_trial_counts(budget: BudgetSpec) -> None:
    clock, seen, world = FakeClock(), list[Snapshot](), FakeWorld()
    study = make_study(
        make_spec(budget=budget),
        InMemoryStorage(),
        world,
        space=plain,
        clock=clock,
        observers=[SnapshotObserver(seen.append)],
    )
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
    clock, seen, world = FakeClock(), list[Snapshot](), FakeWorld()
    study = make_study(
        make_spec(10),
        InMemoryStorage(),
        world,
        space=plain,
        clock=clock,
        observers=[SnapshotObserver(seen.append)],
    )
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
