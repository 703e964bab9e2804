"""Who follows a search hears everything, in order, and cannot end it."""

from dataclasses import replace

import pytest
from fake_world import FakeWorld, assisted, drive, made_up, make_spec, make_study, plain, states

from naskd.study.observer import SnapshotObserver, StudyObserver
from naskd.trials.jobs import TrialResult


class Notes(StudyObserver):
    def __init__(self) -> None:
        self.lines = []

    def asked(self, job):
        self.lines.append(("asked", job.job_id))

    def epoch(self, job, epoch, metrics):
        self.lines.append(("epoch", job.job_id, epoch, dict(metrics)))

    def told(self, job, result):
        self.lines.append(("told", job.job_id, result.status, result.reason))

    def closed(self):
        self.lines.append(("closed",))


def test_an_observer_hears_of_every_job_in_order():
    notes, world = Notes(), FakeWorld()
    study = make_study(make_spec(1), world=world, space=assisted, observers=[notes])
    while (job := study.ask()) is not None:
        study.report(job, 1, {"val_accuracy": 0.5})
        study.tell(job, world.work(job))
    study.release()
    teacher, assistant = (line.removeprefix("artifact ") for line in world.log[:2])
    assert notes.lines == [
        line
        for job in (teacher, assistant, "0")
        for line in (("asked", job), ("epoch", job, 1, {"val_accuracy": 0.5}), ("told", job, "complete", ""))
    ] + [("closed",)]


def test_an_observer_is_told_what_the_ledger_holds():
    notes = Notes()
    study = make_study(make_spec(2, teacher=None), space=plain, observers=[notes])
    study.tell(job := study.ask(), TrialResult("complete", job.seed, metrics={"macs": 1}))
    assert notes.lines[-1] == ("told", "0", "failed", "objective val_accuracy: nan is no finite number")
    assert states(study) == ["FAIL"]


def test_an_observer_that_raises_is_warned_of_once_and_the_others_go_on(caplog):
    class Broken(StudyObserver):
        @property
        def name(self):
            return "mine"

        def asked(self, job):
            raise KeyError("no such run")

        def looked(self, snapshot):
            raise OSError("again")

    notes, seen = Notes(), []
    observers = [Broken(), notes, SnapshotObserver(seen.append)]
    study = make_study(make_spec(3, teacher=None), space=plain, observers=observers)
    drive(study)
    study.release()
    assert states(study) == ["COMPLETE"] * 3
    assert len(notes.lines) == 3 * 2 + 1
    assert seen[-1].complete == 3
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("naskd")]
    assert len(messages) == 1
    assert messages[0].startswith("observer mine raised ")


def test_an_interrupt_passes_an_observer():
    class Interrupted(StudyObserver):
        def looked(self, snapshot):
            raise KeyboardInterrupt

    study = make_study(make_spec(1, teacher=None), space=plain, observers=[Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        study.ask()


def test_observers_are_closed_even_when_the_ledger_cannot_be_written(monkeypatch):
    notes = Notes()
    study = make_study(make_spec(3, teacher=None), space=plain, observers=[notes])
    study.ask()
    monkeypatch.setattr(study._ledger, "end", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        study.release()
    assert notes.lines[-1] == ("closed",)


def test_who_overrides_nothing_hears_nothing():
    study = make_study(make_spec(1, teacher=None), space=plain, observers=[StudyObserver()])
    study.report(job := study.ask(), 1, {})
    study.tell(job, replace(made_up(job, study.facts.design_cost(job.config))))
    study.release()
    assert states(study) == ["COMPLETE"]
