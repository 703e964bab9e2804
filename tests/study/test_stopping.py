"""What a stopping rule sees: the curves of all trainings, those of other drivers too, and what it can do."""

from dataclasses import replace

import pytest
from fake_world import FakeWorld, drive, make_spec, make_study, plain, states
from optuna.storages import InMemoryStorage

from naskd.spec.errors import InputError
from naskd.spec.stopping import STOPPING_RULES, StoppingCard
from naskd.spec.study import StoppingSpec
from naskd.study import study as study_module
from naskd.study.leases import owner_id
from naskd.study.ledger import reported_epochs
from naskd.study.stopping import NeverStop, build_stopping
from naskd.study.storage import open_storage
from naskd.trials.jobs import Decision

DEAD = owner_id().rsplit(":", 2)[0] + ":4194999:1"
SPEC = make_spec(8, teacher=None, warm_start=tuple({"width": w, "depth": 1} for w in (1, 2, 3, 4)))


class Witness(NeverStop):
    """Keeps what it was shown; stops when told to."""

    def __init__(self, stop_at: int = 0) -> None:
        self.stop_at = stop_at
        self.trials, self.finished, self.running = [], [], []

    def decide(self, trial, curve, ledger):
        assert curve == trial.curve
        self.trials.append(trial)
        self.finished, self.running = list(ledger.finished), list(ledger.running)
        return Decision.STOP if curve[-1]["epoch"] == self.stop_at else Decision.CONTINUE


@pytest.fixture(params=["memory", "journal", "sqlite"])
def storage(request, tmp_path, monkeypatch):
    """A function that opens the ledger for one more driver."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    memory = InMemoryStorage()
    return lambda: (
        memory if request.param == "memory" else open_storage(request.param, tmp_path, writing=True)
    )


def test_a_rule_sees_the_curves_of_other_drivers(storage):
    witness = Witness()
    first = make_study(SPEC, storage(), space=plain)
    second = make_study(SPEC, storage(), space=plain, stopping=witness)
    theirs, mine = first.ask(), second.ask()
    first.report(theirs, 1, {"epoch": 1, "val_accuracy": 0.25, "loss": 2.0})
    second._look()
    second.report(mine, 1, {"epoch": 1, "val_accuracy": 0.5})
    assert [(t.number, t.status, list(t.curve)) for t in witness.running] == [
        (0, "running", [{"epoch": 1, "val_accuracy": 0.25, "loss": 2.0}]),
        (1, "running", [{"epoch": 1, "val_accuracy": 0.5}]),
    ]
    assert [t.config for t in witness.running] == [theirs.config, mine.config]
    assert witness.finished == []
    first.tell(theirs, first.facts.work(theirs))
    second._look()
    second.report(mine, 2, {"epoch": 2, "val_accuracy": 0.75})
    (done,) = witness.finished
    result = first.facts.work(theirs)
    assert (done.number, done.status, done.config) == (0, "complete", theirs.config)
    assert [dict(point) for point in done.curve] == [dict(point) for point in result.curve]
    assert done.metrics == result.metrics
    assert [t.number for t in witness.running] == [1]
    assert [point["val_accuracy"] for point in witness.trials[-1].curve] == [0.5, 0.75]


def test_epochs_are_attributes_and_no_intermediate_values(storage):
    study = make_study(SPEC, storage(), space=plain)
    job = study.ask()
    for epoch in (1, 2):
        study.report(job, epoch, {"epoch": epoch, "val_accuracy": epoch / 4})
    trial = study.optuna_study.get_trials(deepcopy=False)[0]
    assert reported_epochs(trial.user_attrs) == {
        1: {"epoch": 1, "val_accuracy": 0.25},
        2: {"epoch": 2, "val_accuracy": 0.5},
    }
    assert not trial.intermediate_values, "intermediate values break TPE with several objectives"


def test_a_stopped_trial_is_pruned_with_its_curve_and_counts(storage):
    world = FakeWorld()
    study = make_study(SPEC, storage(), world, space=plain, stopping=Witness(stop_at=1))
    job = study.ask()
    assert study.report(job, 1, {"epoch": 1, "val_accuracy": 0.1}) is Decision.STOP
    full = world.work(job)
    study.tell(job, replace(full, status="stopped", reason="by whom?", curve=full.curve[:1], spent_macs=4))
    trial = study.optuna_study.get_trials(deepcopy=False)[0]
    assert states(study)[0] == "PRUNED"
    assert trial.user_attrs["reason"] == "stopped by rule 'Witness' after epoch 1"
    assert trial.user_attrs["result"]["reason"] == trial.user_attrs["reason"]
    assert [point["epoch"] for point in trial.user_attrs["result"]["curve"]] == [1]
    assert study.train_macs == 4
    drive(study)
    found = states(study)
    assert (found.count("PRUNED"), found.count("COMPLETE")) == (1, 7), "it counts for the budget of 8"


def test_stopping_at_the_last_epoch_means_nothing():
    study = make_study(SPEC, space=plain, stopping=Witness(stop_at=2))
    job = study.ask()
    assert job.until_epoch == 2
    assert study.report(job, 1, {"epoch": 1}) is Decision.CONTINUE
    assert study.report(job, 2, {"epoch": 2}) is Decision.CONTINUE
    study.tell(job, study.facts.work(job))
    assert states(study)[0] == "COMPLETE"


def test_no_rule_is_asked_before_the_student_is_there():
    """A scheme may train a wider network first."""
    witness = Witness(stop_at=1)
    study = make_study(replace(SPEC, epochs=3), space=plain, stopping=witness)
    job = study.ask()
    assert study.report(job, 1, {"epoch": 1, "val_accuracy": 0.1, "other_network": 1.0}) is Decision.CONTINUE
    assert not witness.trials
    witness.stop_at = 2
    assert study.report(job, 2, {"epoch": 2, "val_accuracy": 0.1}) is Decision.STOP
    assert [row.get("other_network") for row in witness.trials[-1].curve] == [1.0, None]


def test_an_artifact_is_never_stopped():
    study = make_study(space=plain, stopping=Witness(stop_at=1))
    teacher = study.ask()
    assert teacher.kind == "artifact"
    assert study.report(teacher, 1, {"epoch": 1}) is Decision.CONTINUE


def test_a_curve_goes_on_where_a_dead_driver_left_it(storage, monkeypatch):
    """Its checkpoint is taken up, and the epochs before it are not reported again."""
    monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
    first = make_study(SPEC, storage(), space=plain)
    first.report(first.ask(), 1, {"epoch": 1, "val_accuracy": 0.1})
    monkeypatch.undo()
    witness = Witness()
    second = make_study(SPEC, storage(), space=plain, stopping=witness)
    jobs = [second.ask() for _ in range(4)]
    again = next(job for job in jobs if job.config == jobs[-1].config)
    second.report(again, 2, {"epoch": 2, "val_accuracy": 0.2})
    assert second.optuna_study.get_trials(deepcopy=False)[int(again.job_id)].user_attrs["retry_of"] == 0
    assert [point["val_accuracy"] for point in witness.trials[-1].curve] == [0.1, 0.2]


def test_what_a_lost_worker_repeats_is_written_once_and_shown_as_it_was(tmp_path):
    witness = Witness()
    storage = open_storage("journal", tmp_path, writing=True)
    study = make_study(SPEC, storage, space=plain, stopping=witness)
    job = study.ask()
    for epoch in (1, 2):
        study.report(job, epoch, {"epoch": epoch, "val_accuracy": epoch / 4})
    before = (tmp_path / "journal.log").read_bytes()
    study.report(job, 1, {"epoch": 1, "val_accuracy": 0.25})
    assert (tmp_path / "journal.log").read_bytes() == before
    assert [len(trial.curve) for trial in witness.trials] == [1, 2, 1]


def test_an_epoch_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    study = make_study(SPEC, open_storage("journal", tmp_path, writing=True), space=plain)
    job = study.ask()
    waits = []
    monkeypatch.setattr("os.fsync", waits.append)
    study.report(job, 1, {"epoch": 1, "val_accuracy": 0.5})
    assert waits == []
    assert b'"epoch:1"' in (tmp_path / "journal.log").read_bytes()


def test_a_trial_that_another_driver_has_taken_is_stopped(monkeypatch):
    memory = InMemoryStorage()
    monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
    first = make_study(SPEC, memory, space=plain)
    job = first.ask()
    monkeypatch.undo()
    second = make_study(SPEC, memory, space=plain)
    assert states(second)[0] == "FAIL"
    assert first.report(job, 1, {"epoch": 1}) is Decision.STOP
    again = second.ask()
    second.tell(again, second.facts.work(again))


# --- making one ----------------------------------------------------------------------------------------------------


def _raises(**_options):
    raise ValueError("boom\nand more")


def _leaves(**_options):
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: None, "stopping rule 'mine' returned NoneType; it must return a .* with a method decide"),
        (lambda: "x", "stopping rule 'mine' returned str; it must return a"),
        (lambda: True, "stopping rule 'mine' returned bool; it must return a"),
        (lambda: NeverStop, "stopping rule 'mine' returned type; it must return a"),
        (_raises, "stopping rule 'mine' cannot be made: ValueError: boom$"),
        (_leaves, "stopping rule 'mine' cannot be made: SystemExit: 0$"),
        (lambda wanted: None, "stopping rule 'mine' cannot be made: TypeError: "),
    ],
)
def test_what_makes_no_rule_is_one_line(make, says, monkeypatch):
    monkeypatch.setitem(STOPPING_RULES._cards, "mine", StoppingCard("mine", "mine", "", make))
    with pytest.raises(InputError, match=f"^{says}"):
        build_stopping(StoppingSpec("mine"))


def test_a_rule_of_any_class_that_decides_is_one(monkeypatch):
    class Mine:
        def decide(self, trial, curve, ledger):
            return Decision.CONTINUE

    monkeypatch.setitem(STOPPING_RULES._cards, "mine", StoppingCard("mine", "mine", "", Mine))
    assert isinstance(build_stopping(StoppingSpec("mine")), Mine)
