"""Studies against a table, in made-up time: what an executor with N workers would do, by hand calculation."""

import time
from dataclasses import replace

import pytest
from fake_world import IDENTITY, REFERENCE, FakeWorld, make_spec, plain, student
from optuna.storages import InMemoryStorage

from naskd.executors.local.replay import ReplayExecutor, ReplayFacts
from naskd.spec.clock import FakeClock
from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError, RunError
from naskd.spec.study import BudgetSpec, SamplerSpec
from naskd.study.observer import StudyObserver
from naskd.study.record import run_record
from naskd.study.stopping import NeverStop
from naskd.study.study import Study
from naskd.tables import Recorded
from naskd.trials.jobs import Decision

COST = FakeWorld().design_cost


def table(config: TrialConfig) -> Recorded:
    """Trials of width w take 2 epochs of w seconds each; wider is better."""
    width = config.architecture.stages[0].width
    accuracy = width / 100
    return Recorded(
        curve=({"val_accuracy": accuracy / 2}, {"val_accuracy": accuracy}),
        metrics={"val_accuracy": accuracy, "macs": COST(config).macs, "n_params": COST(config).n_params},
        train_macs=1000,
        epoch_seconds=float(width),
    )


class Diary(StudyObserver):
    """What happened when."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.lines = clock, []

    def asked(self, job):
        self.lines.append((self.clock.monotonic(), "asked", job.job_id))

    def epoch(self, job, epoch, metrics):
        self.lines.append((self.clock.monotonic(), f"epoch {epoch}", job.job_id))

    def told(self, job, result):
        self.lines.append((self.clock.monotonic(), result.status, job.job_id))


def replayed(spec, workers=1, *, table=table, space=plain, storage=None, stopping=None):
    """A finished study, its diary and its clock."""
    clock = FakeClock()
    diary = Diary(clock)
    study = Study(
        spec, space, storage or InMemoryStorage(), ReplayFacts(COST), identity=IDENTITY,
        reference_point={name: REFERENCE[name] for name in spec.objectives}, observers=[diary], stopping=stopping,
        clock=clock,
    )  # fmt: skip
    ReplayExecutor(table, clock, workers).run(study)
    study.release()
    return study, diary.lines, clock


GIVEN = tuple({"width": width, "depth": 1} for width in (3, 1, 2))


def test_two_workers_interleave_as_a_hand_calculation_says():
    spec = make_spec(3, teacher=None, warm_start=GIVEN)
    _, lines, clock = replayed(spec, 2)
    assert lines == [
        (0.0, "asked", "0"),  # 3 s an epoch
        (0.0, "asked", "1"),  # 1 s
        (1.0, "epoch 1", "1"),
        (2.0, "epoch 2", "1"),
        (2.0, "complete", "1"),
        (2.0, "asked", "2"),  # 2 s
        (3.0, "epoch 1", "0"),
        (4.0, "epoch 1", "2"),
        (6.0, "epoch 2", "0"),
        (6.0, "complete", "0"),  # at the same moment as the next, and asked for before it
        (6.0, "epoch 2", "2"),
        (6.0, "complete", "2"),
    ]
    assert clock.monotonic() == 6.0


def test_one_worker_takes_the_sum_and_many_the_longest():
    spec = make_spec(3, teacher=None, warm_start=GIVEN)
    assert [replayed(spec, workers)[2].monotonic() for workers in (1, 3, 9)] == [12.0, 6.0, 6.0]


def test_the_same_again_and_the_ledger_says_what_the_table_says():
    spec = make_spec(8)
    found = [replayed(spec, 3) for _ in range(2)]
    assert found[0][1] == found[1][1]
    record = run_record(found[0][0].optuna_study, spec.objectives)
    assert record["counts"]["complete"] == 8
    assert record["train_macs"] == 8000
    for trial in (t for t in record["trials"] if t["state"] == "COMPLETE"):
        width = trial["config"]["architecture"]["stages"][0]["width"]
        assert trial["val_accuracy"] == width / 100
        assert trial["wall_seconds"] == 2 * width
        assert [point["epoch"] for point in trial["curve"]] == [1, 2]


class Narrow(NeverStop):
    """Stops what is bad after the first epoch."""

    def decide(self, trial, curve, ledger):
        return Decision.STOP if curve[-1]["val_accuracy"] < 0.011 else Decision.CONTINUE


def test_a_stopping_rule_acts_and_what_was_not_trained_is_not_spent():
    spec = make_spec(3, teacher=None, warm_start=GIVEN)
    study, lines, clock = replayed(spec, stopping=Narrow())
    assert [line[1:] for line in lines if line[1] in ("stopped", "complete")] == [
        ("complete", "0"), ("stopped", "1"), ("stopped", "2"),
    ]  # fmt: skip
    assert clock.monotonic() == 6.0 + 1.0 + 2.0
    assert study.train_macs == 1000 + 500 + 500
    trials = study.optuna_study.trials
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert trials[1].user_attrs["reason"] == "stopped by rule 'Narrow' after epoch 1"
    assert list(trials[1].user_attrs["result"]["curve"]) == [{"epoch": 1, "val_accuracy": 0.005}]


def test_a_budget_of_seconds_is_of_made_up_ones():
    spec = make_spec(teacher=None, budget=BudgetSpec(seconds=7.0), warm_start=GIVEN)
    study, lines, clock = replayed(spec)
    asked = [job for _, what, job in lines if what == "asked"]
    assert asked == ["0", "1"], "6 s, then 2 s: the budget is over, and what runs is finished"
    assert clock.monotonic() == 8.0
    assert study.end_reason == "7 s are over"


def test_two_hundred_trials_take_a_moment():
    spec = make_spec(200, teacher=None, sampler=SamplerSpec(name="random"))
    began = time.perf_counter()
    study, _, clock = replayed(spec, 8)
    assert study.end_reason == "all 200 trials done"
    assert clock.monotonic() > 200
    assert time.perf_counter() - began < 10


def test_a_mapping_is_a_table_too_and_says_what_it_does_not_have():
    def one(trial):
        return TrialConfig(student(trial.suggest_int("width", 5, 5)))

    config = TrialConfig(student(5))
    spec = make_spec(1, teacher=None)
    known = {}

    def learn(config):
        known[config.config_id] = table(config)
        return known[config.config_id]

    replayed(spec, space=one, table=learn)
    study, _, _ = replayed(spec, space=one, table=known)
    assert study.end_reason == "all 1 trials done"
    with pytest.raises(RunError, match=r"the table has no design .*, which trial 0 wants"):
        replayed(spec, space=one, table={config.config_id + "x": table(config)})


def test_a_rule_that_raises_or_does_not_decide_is_told_by_name():
    class Broken(NeverStop):
        def decide(self, trial, curve, ledger):
            raise KeyError("rung")

    class Mute(NeverStop):
        def decide(self, trial, curve, ledger):
            return None

    spec = make_spec(2, teacher=None)
    with pytest.raises(InputError, match="stopping rule 'Broken' raised KeyError: 'rung'"):
        replayed(spec, stopping=Broken())
    with pytest.raises(InputError, match="stopping rule 'Mute' returned None"):
        replayed(spec, stopping=Mute())


def test_a_further_seed_of_a_design_is_looked_up_and_one_that_is_not_there_is_said():
    def seeds(config: TrialConfig) -> Recorded:
        first = table(config)
        worse = {name: value - 0.001 * (name == "val_accuracy") for name, value in first.metrics.items()}
        return replace(first, again=(replace(first, metrics=worse),))

    spec = make_spec(None, teacher=None, budget=BudgetSpec(trials=30, front_seeds=2))
    study, _, _ = replayed(spec, 2, table=seeds)
    trained = [t for t in run_record(study.optuna_study, spec.objectives)["trials"] if t["replicates"]]
    assert trained
    for trial in trained:
        assert trial["replicates"]["n"] == 2
        assert trial["val_accuracy"] == pytest.approx(trial["own"]["val_accuracy"] - 0.0005)
    with pytest.raises(RunError, match=r"budget.front_seeds: trial \d+ wants training 2 of design"):
        replayed(spec, 2)


class PausesTheFirst(NeverStop):
    """And has it go on in a later session."""

    def __init__(self, promotes: bool) -> None:
        self.promotes = promotes

    def decide(self, trial, curve, ledger):
        return Decision.PAUSE if trial.number == 0 and len(curve) == 1 else Decision.CONTINUE

    def promote(self, ledger):
        return 0 if self.promotes and any(trial.paused for trial in ledger.finished) else None


def test_what_an_earlier_session_has_paid_is_not_paid_again():
    """A bank is filled once, and a training that was paused goes on from where it was."""

    def taught(config):
        return replace(table(config), shared=({"views of epoch 1": 500}, {"views of epoch 2": 70}))

    storage, spent = InMemoryStorage(), []
    for trials, promotes in ((3, False), (3, True), (4, False)):
        spec = make_spec(trials, teacher=None, warm_start=GIVEN)
        study, _, _ = replayed(spec, table=taught, storage=storage, stopping=PausesTheFirst(promotes))
        spent.append(study.train_macs)
    assert spent == [2500 + 570, 3000 + 570, 4000 + 570]


@pytest.mark.parametrize(("epochs", "what"), [(1, "few"), (3, "many")])
def test_other_epochs_than_were_recorded_are_said(epochs, what):
    """Of fewer its accuracy was that after all of them at the cost of a few, of more that of a part."""
    spec = make_spec(1, teacher=None, epochs=epochs)
    said = (
        f"the table has 2 epochs .* trial 0 is to have {epochs}: .* so {what} is not recorded; set epochs = 2"
    )
    with pytest.raises(RunError, match=said):
        replayed(spec)


def test_a_further_training_has_as_many_epochs_as_the_first():
    def repeated(config):
        first = table(config)
        return replace(first, again=(replace(first, curve=first.curve[:1]),))

    budget = BudgetSpec(trials=4, front_seeds=2)
    with pytest.raises(RunError, match=r"the table has 1 epoch of .* is to have 2"):
        replayed(make_spec(4, teacher=None, budget=budget), table=repeated)
