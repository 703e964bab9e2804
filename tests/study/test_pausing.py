"""Trials that are paused and go on: who does, what is booked, what counts, and what others see of it."""

from dataclasses import replace

import pytest
from fake_world import FakeWorld, drive, make_spec, make_study, plain, states
from optuna.storages import InMemoryStorage

from naskd.spec.errors import InputError
from naskd.spec.study import BudgetSpec, SamplerSpec
from naskd.study import study as study_module
from naskd.study.leases import owner_id
from naskd.study.ledger import CONTINUES
from naskd.study.record import run_record
from naskd.study.stopping import NeverStop
from naskd.study.storage import open_storage
from naskd.trials.jobs import Decision

DEAD = owner_id().rsplit(":", 2)[0] + ":4194999:1"
OBJ = ("val_accuracy", "macs")


class Pauses(NeverStop):
    """Pauses trials after their first epoch; wants back what it is told to."""

    def __init__(self, *numbers: int, wanted: tuple[int, ...] = ()) -> None:
        self.numbers, self.wanted, self.shown = numbers, list(wanted), []

    def decide(self, trial, curve, ledger):
        self.shown.append(trial)
        early = curve[-1]["epoch"] == 1 and trial.number in self.numbers
        return Decision.PAUSE if early else Decision.CONTINUE

    def promote(self, ledger):
        self.finished = list(ledger.finished)
        paused = [trial.number for trial in self.finished if trial.paused]
        return next((number for number in self.wanted if number in paused), None)


class PausingWorld(FakeWorld):
    """Does half of the work until a trial is paused, and the other half when it goes on."""

    asked_images = 0
    """Of each part."""

    def one_epoch(self, job):
        whole = self.work(job)
        return replace(whole, status="stopped", curve=whole.curve[:1], train_macs=5, spent_macs=4)

    def work(self, job):
        whole = super().work(job)
        spent = 6 if job.continues else 10
        return replace(whole, train_macs=10, spent_macs=spent, asked_images=self.asked_images)


def spec_of(trials=4, **changes):
    return make_spec(trials, teacher=None, sampler=SamplerSpec("random"), **changes)


@pytest.fixture(params=["memory", "journal", "sqlite"])
def storage(request, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    memory = InMemoryStorage()
    return lambda: (
        memory if request.param == "memory" else open_storage(request.param, tmp_path, writing=True)
    )


def run(study, job):
    """A job as an executor does it; the number of the epoch after which it ended."""
    first = 2 if job.continues else 1
    for epoch in range(first, 3):
        decision = study.report(job, epoch, {"epoch": epoch, "val_accuracy": epoch / 10})
        if decision is not Decision.CONTINUE:
            study.tell(job, study.facts.one_epoch(job))
            return epoch
    study.tell(job, study.facts.work(job))
    return 2


def run_all(study):
    ended = {}
    while (job := study.ask()) is not None:
        ended[int(job.job_id)] = job, run(study, job)
    return ended


def trials_of(study):
    return study.optuna_study.get_trials(deepcopy=False)


def test_a_paused_trial_goes_on_when_its_rule_wants_it_back(storage):
    rule = Pauses(0, wanted=(0,))
    study = make_study(spec_of(), storage(), PausingWorld(), space=plain, stopping=rule)
    ended = run_all(study)
    first, second = trials_of(study)[0], trials_of(study)[1]
    assert states(study)[:2] == ["PRUNED", "COMPLETE"]
    assert first.user_attrs["reason"] == "paused by rule 'Pauses' after epoch 1"
    assert first.user_attrs["result"]["paused"]
    assert second.user_attrs[CONTINUES] == 0
    assert ended[1][0].continues == "0"
    for key in ("config_id", "seed"):
        assert second.user_attrs[key] == first.user_attrs[key], "it is the same training"
    assert second.params == first.params


def test_a_search_ends_though_designs_wait_that_its_budget_has_no_room_for(storage):
    """They would come before whom the rule wants back, so that nothing is begun; with a larger budget all are."""
    first = tuple({"width": width, "depth": 1} for width in (1, 2, 3))
    ledger, spec, rule = storage(), spec_of(2, warm_start=first), Pauses(0, wanted=(0,))
    study = make_study(spec, ledger, PausingWorld(), space=plain, stopping=rule)
    run_all(study)
    assert (study.finished, study.end_reason) == (True, "all 2 trials done")
    assert states(study) == ["PRUNED", "COMPLETE", "WAITING"]
    study.release()
    larger = replace(spec, budget=BudgetSpec(trials=3))
    study = make_study(larger, ledger, PausingWorld(), space=plain, stopping=rule)
    run_all(study)
    assert study.finished
    assert states(study) == ["PRUNED", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert trials_of(study)[3].user_attrs[CONTINUES] == 0


def test_what_goes_on_does_not_count_in_the_budget_of_trials(storage):
    study = make_study(
        spec_of(), storage(), PausingWorld(), space=plain, stopping=Pauses(0, 1, wanted=(0, 1))
    )
    run_all(study)
    assert states(study).count("COMPLETE") == 4
    assert len({t.user_attrs["config_id"] for t in trials_of(study)}) == 4
    assert study.end_reason == "all 4 trials done"


def test_when_all_trials_were_begun_paused_ones_may_still_go_on(storage):
    """The last trial is paused when the budget is full."""
    study = make_study(spec_of(), storage(), PausingWorld(), space=plain, stopping=Pauses(3, wanted=(3,)))
    run_all(study)
    assert states(study) == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert trials_of(study)[4].user_attrs[CONTINUES] == 3


def test_who_is_not_wanted_back_stays_paused():
    study = make_study(spec_of(), world=PausingWorld(), space=plain, stopping=Pauses(0))
    run_all(study)
    assert states(study) == ["PRUNED", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert study.finished


def test_each_part_is_paid_once(storage):
    study = make_study(spec_of(), storage(), PausingWorld(), space=plain, stopping=Pauses(0, wanted=(0,)))
    run_all(study)
    assert study.train_macs == 4 + 6 + 3 * 10
    record = run_record(study.optuna_study, OBJ)
    assert record["train_macs"] == 40
    again = make_study(spec_of(), storage(), PausingWorld(), space=plain)
    assert again.train_macs == 40, "the next session counts alike"


def test_what_a_bank_saves_of_a_training_in_two_parts_counts_once():
    world = PausingWorld()
    world.asked_images = 7
    study = make_study(spec_of(), world=world, space=plain, stopping=Pauses(0, wanted=(0,)))
    run_all(study)
    # 10 in two parts that spent 4 and 6, and three of 10 that spent 10: nothing was saved.
    assert run_record(study.optuna_study, OBJ)["bank"]["saved_macs"] == 0


def test_the_record_says_who_goes_on_with_whom():
    study = make_study(spec_of(), world=PausingWorld(), space=plain, stopping=Pauses(0, 2, wanted=(0,)))
    run_all(study)
    record = run_record(study.optuna_study, OBJ)
    first, second, third, paused, _ = record["trials"]
    assert (first["continued_by"], first["continues"]) == (1, None)
    assert (second["continued_by"], second["continues"]) == (None, 0)
    assert first["reason"] == "paused by rule 'Pauses' after epoch 1; trial 1 goes on with it"
    assert third["continues"] is None
    assert paused["state"] == "COMPLETE"
    counts = {key: record["counts"][key] for key in ("complete", "stopped", "turned_away", "failed")}
    assert counts == {"complete": 3, "stopped": 1, "turned_away": 0, "failed": 0}


def test_the_record_counts_a_trial_that_goes_on_as_its_budget_does():
    study = make_study(spec_of(), world=PausingWorld(), space=plain, stopping=Pauses(0, wanted=(0,)))
    run(study, study.ask())
    job = study.ask()
    assert job.continues == "0"

    def counted():
        record = run_record(study.optuna_study, OBJ)
        return record["trials"][0]["continued_by"], record["counts"]["stopped"], record["counts"]["trained"]

    assert counted() == (1, 1, study._ledger.trained)
    study.release()
    assert counted() == (2, 1, study._ledger.trained), "it waits to be run again"
    later = make_study(
        spec_of(), study._study._storage, PausingWorld(), space=plain, stopping=Pauses(wanted=(0,))
    )
    again = later.ask()
    later._asking.turn_away(int(again.job_id), "duplicate: design of another driver")
    assert counted() == (None, 1, 1), "nobody has gone on with it"


def test_a_rule_sees_each_training_once():
    rule = Pauses(0, 2, wanted=(0,))
    study = make_study(spec_of(), world=PausingWorld(), space=plain, stopping=rule)
    run_all(study)
    assert [len(t.curve) for t in rule.shown if t.number == 1] == [2], "its epochs before are in its curve"
    assert {t.number for t in rule.shown if t.continued} == {1}
    study._deciding._changes += 1
    study._wanted_back()
    found = {t.number: (t.status, t.paused) for t in rule.finished}
    assert found == {
        1: ("complete", False), 2: ("stopped", True), 3: ("complete", False), 4: ("complete", False),
    }  # fmt: skip


def test_a_design_that_is_proposed_again_goes_on():
    """A sampler may want it back as well: no duplicate, as that of a trial that was stopped."""
    study = make_study(spec_of(5), world=PausingWorld(), space=plain, stopping=Pauses(0))
    run(study, study.ask())
    design = trials_of(study)[0].params
    for _ in range(2):
        study.optuna_study.enqueue_trial(design)
    again, other = study.ask(), study.ask()
    assert (again.continues, other.continues) == ("0", "")
    assert trials_of(study)[2].user_attrs["reason"].startswith("duplicate"), (
        "somebody goes on with it already"
    )
    run(study, again)
    study.optuna_study.enqueue_trial(design)
    run(study, study.ask())
    assert trials_of(study)[4].user_attrs["reason"].startswith("duplicate"), "it is complete"


def test_while_one_goes_on_with_it_nobody_else_does(storage):
    world = PausingWorld()
    first = make_study(spec_of(), storage(), world, space=plain, stopping=Pauses(0, wanted=(0,)))
    second = make_study(spec_of(), storage(), world, space=plain, stopping=Pauses(wanted=(0,)))
    run(first, first.ask())
    going_on, other = first.ask(), second.ask()
    assert (going_on.continues, other.continues) == ("0", "")
    for study, job in ((first, going_on), (second, other)):
        run(study, job)
    while (job := first.ask()) is not None:
        run(first, job)
    assert sum(CONTINUES in trial.user_attrs for trial in trials_of(first)) == 1
    assert states(first).count("COMPLETE") == 4


def test_it_may_be_paused_again_and_pays_for_each_part():
    study = make_study(
        spec_of(1, epochs=2), world=PausingWorld(), space=plain, stopping=Pauses(0, 1, wanted=(0, 1))
    )
    run(study, study.ask())
    again = study.ask()
    # Its checkpoint was lost, so that it begins anew, and is paused once more.
    assert study.report(again, 1, {"epoch": 1, "val_accuracy": 0.1}) is Decision.PAUSE
    study.tell(again, study.facts.one_epoch(again))
    last = study.ask()
    assert (again.continues, last.continues) == ("0", "1")
    run(study, last)
    assert study.train_macs == 4 + 4 + 6
    assert states(study) == ["PRUNED", "PRUNED", "COMPLETE"]
    record = run_record(study.optuna_study, OBJ)
    assert record["counts"]["stopped"] == 0


def test_one_whose_driver_died_is_taken_up_by_another(storage, monkeypatch):
    monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
    world = PausingWorld()
    dead = make_study(spec_of(), storage(), world, space=plain, stopping=Pauses(0, wanted=(0,)))
    run(dead, dead.ask())
    assert dead.ask().continues == "0"
    monkeypatch.undo()
    study = make_study(spec_of(), storage(), world, space=plain, stopping=Pauses(wanted=(0,)))
    ended = run_all(study)
    assert (states(study).count("COMPLETE"), states(study).count("FAIL")) == (4, 1)
    retries = [n for n, (job, _) in ended.items() if job.continues]
    assert len(retries) == 1
    assert trials_of(study)[retries[0]].user_attrs["retry_of"] == 1
    assert study.train_macs == 40


def test_one_that_fails_is_not_paused_any_more():
    study = make_study(spec_of(2), world=PausingWorld(), space=plain, stopping=Pauses(0, wanted=(0,)))
    run(study, study.ask())
    again = study.ask()
    study.tell(again, replace(study.facts.work(again), status="failed", reason="it diverged"))
    run_all(study)
    assert states(study) == ["PRUNED", "FAIL", "COMPLETE"]


def test_the_budget_of_training_ends_a_search_whoever_is_paused():
    spec = spec_of(budget=BudgetSpec(train_macs=4))
    study = make_study(spec, world=PausingWorld(), space=plain, stopping=Pauses(0, wanted=(0,)))
    run(study, study.ask())
    assert study.ask() is None
    assert study.finished


def test_a_rule_that_wants_back_what_is_not_paused_ends_the_search():
    class Wrong(Pauses):
        def promote(self, ledger):
            return 17

    study = make_study(spec_of(), world=PausingWorld(), space=plain, stopping=Wrong(0))
    run(study, study.ask())
    with pytest.raises(InputError, match=r"'Wrong' wants trial 17 to go on; paused are: 0"):
        study.ask()


def test_a_rule_that_raises_when_asked_is_named():
    class Broken(Pauses):
        def promote(self, ledger):
            raise KeyError("no such thing")

    study = make_study(spec_of(), world=PausingWorld(), space=plain, stopping=Broken(0))
    run(study, study.ask())
    with pytest.raises(InputError, match="stopping rule 'Broken' raised KeyError"):
        study.ask()


def test_a_search_without_pauses_is_as_before():
    study = make_study(spec_of(), world=FakeWorld(), space=plain)
    drive(study)
    assert states(study) == ["COMPLETE"] * 4
    assert not any(t["continues"] for t in run_record(study.optuna_study, OBJ)["trials"])
