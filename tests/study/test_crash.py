"""A study that dies at each of its writes, and again while it recovers, ends with the same ledger as one that lives."""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
from fake_world import TRIAL_MACS, FakeWorld, drive, joint, made_up, make_spec, make_study, states
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FixedTrial, TrialState

from naskd.study import drivers as drivers_module
from naskd.study import opening as opening_module
from naskd.study import study as study_module
from naskd.study.leases import owner_id
from naskd.study.ledger import Ledger, booked_artifacts
from naskd.study.record import run_record
from naskd.trials.jobs import Job

DEAD = owner_id().rsplit(":", 2)[0] + ":4194999:1"
N = 3
SPEC = make_spec(
    N,
    warm_start=(
        {"width": 8, "depth": 1, "rate": 1e-3, "kd.use": True, "kd.temperature": 2, "kd.assistant": "a"},
        {"width": 16, "depth": 2, "rate": 1e-3, "kd.use": False, "kd.temperature": 2, "kd.assistant": "none"},
    ),
)


class Death(BaseException):
    """What a kill is to the code that runs: nothing is cleaned up after it."""


class MortalJournal(BaseJournalBackend):
    """A journal in memory whose writer dies instead of making its write number `last`."""

    def __init__(self, entries: list[dict[str, Any]], last: int | None = None) -> None:
        self.entries = entries
        self.left = last

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        yield from self.entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self.left is not None:
            if self.left == 0:
                raise Death
            self.left -= 1
        self.entries.extend(logs)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch) -> None:
    """No driver waits for another one, neither to claim a trial nor for a study that one died creating."""
    for module in (drivers_module, opening_module):
        monkeypatch.setattr(module, "CLAIM_SECONDS", 0.0)


def _live(entries: list[dict[str, Any]], world: FakeWorld, monkeypatch, writes: int | None):
    """One life of a study; None when it died."""
    monkeypatch.setattr(study_module, "owner_id", lambda: DEAD)
    try:
        study = make_study(SPEC, JournalStorage(MortalJournal(entries, writes)), world)
        drive(study)
    except Death:
        return None
    return study


@pytest.fixture(scope="module")
def n_writes() -> int:
    """Of a study that lives."""
    entries: list[dict[str, Any]] = []
    drive(make_study(SPEC, JournalStorage(MortalJournal(entries))))
    return len(entries)


def _check(study, world: FakeWorld, deaths: int) -> None:
    trials = study.optuna_study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    record = run_record(study.optuna_study, SPEC.objectives)
    assert len(complete) == N
    assert set(states(study)) <= {"COMPLETE", "FAIL", "PRUNED"}, "nothing is left running or waiting"
    assert record["counts"]["failed"] == 0, "what died was run again, and is no failure"
    assert len({(t.user_attrs["config_id"], t.user_attrs["seed"]) for t in complete}) == N
    for given in SPEC.warm_start:
        assert given in [t.params for t in complete], "a design that was given is not lost"
    for trial in complete:
        config = joint(FixedTrial(trial.params))
        job = Job("0", "trial", config, trial.user_attrs["seed"], 2)
        expected = made_up(job, world.design_cost(config))
        assert trial.values == [expected.metrics["val_accuracy"], expected.metrics["macs"]]
        assert trial.user_attrs["result"]["metrics"] == dict(expected.metrics)
    trainings = [entry for entry in world.log if not entry.startswith("artifact")]
    assert N <= len(trainings) <= N + deaths, "a death costs the running trial and no more"
    booked = booked_artifacts(study.optuna_study.user_attrs)
    assert booked.keys() <= world.made
    assert study.train_macs == N * TRIAL_MACS + sum(
        a["spent_macs"] for a in booked.values() if a["label"] == "assistant"
    )
    assert record["train_macs"] == study.train_macs


def test_dying_at_any_write_loses_nothing(n_writes, monkeypatch):
    assert n_writes > 50
    for write in range(n_writes):
        entries: list[dict[str, Any]] = []
        world = FakeWorld()
        assert _live(entries, world, monkeypatch, write) is None
        study = _live(entries, world, monkeypatch, None)
        _check(study, world, deaths=1)


def test_dying_again_during_the_recovery_loses_nothing(n_writes, monkeypatch):
    for write in range(0, n_writes, 2):
        left: list[dict[str, Any]] = []
        died = FakeWorld()
        assert _live(left, died, monkeypatch, write) is None
        for second in range(8):
            entries, world = deepcopy((left, died))
            study = _live(entries, world, monkeypatch, second)
            if study is None:
                study = _live(entries, world, monkeypatch, None)
            _check(study, world, deaths=2)


# --- a second Ctrl-C ---------------------------------------------------------------------------------------------


class InterruptedJournal(MortalJournal):
    """One write, of all, is met by a Ctrl-C that is heard at once: before it, or when it is done."""

    after = False

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except Death:
            self.left = None
            if self.after:
                super().append_logs(logs)
            raise KeyboardInterrupt from None


@pytest.mark.parametrize("after", [False, True])
def test_interrupted_at_any_write_no_training_is_lost(n_writes, after, monkeypatch):
    """In the same process, as `naskd search` does it: the session is released, and the next one goes on."""
    for write in range(after, n_writes, 2):
        journal, world = InterruptedJournal([], write), FakeWorld()
        journal.after = after
        with suppress(KeyboardInterrupt):
            study = make_study(SPEC, JournalStorage(journal), world)
            try:
                drive(study)
            finally:
                study.release()
        assert journal.left is None, "it came"
        with monkeypatch.context() as later:
            # What was left running is that of a process that has ended.
            later.setattr(drivers_module, "process_lives", lambda owner: False)
            again = make_study(SPEC, JournalStorage(MortalJournal(journal.entries)), world)
            drive(again)
        _check(again, world, deaths=1)
        written = [t for t in again.optuna_study.get_trials(deepcopy=False) if "result" in t.user_attrs]
        assert len(written) == N
        assert {t.state for t in written} == {TrialState.COMPLETE}, "a finished training is booked"


def test_interrupted_between_result_and_end_a_trial_is_booked(monkeypatch):
    entries, world, close, calls = [], FakeWorld(), Ledger.close, []

    def interrupted(self, number, result):
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return close(self, number, result)

    monkeypatch.setattr(Ledger, "close", interrupted)
    study = make_study(SPEC, JournalStorage(MortalJournal(entries)), world)
    with pytest.raises(KeyboardInterrupt):
        drive(study)
    study.release()
    assert states(study)[calls[1]] == "COMPLETE"
    again = make_study(SPEC, JournalStorage(MortalJournal(entries)), world)
    drive(again)
    _check(again, world, deaths=0)
