"""What the serial executor does when there is nothing to do now, but may be later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_studies import design, given, small_context

from naskd.executors.attempts import WorkerError
from naskd.executors.local import serial
from naskd.executors.local.serial import SerialExecutor
from naskd.spec.study import ExecutionSpec, StoppingSpec
from naskd.store.checkpoints import CheckpointStore
from naskd.testing.fixed_source import FixedSource
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.steps import job_steps


class LaterSource:
    """Has nothing at first, then one job, then nothing again, and is finished a while later."""

    def __init__(self, answers: list[Job | None]) -> None:
        self.answers = answers
        self.told: list[str] = []

    @property
    def finished(self) -> bool:
        return not self.answers

    def ask(self) -> Job | None:
        return self.answers.pop(0)

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        return Decision.CONTINUE

    def tell(self, job: Job, result: TrialResult) -> None:
        self.told.append(job.job_id)


@pytest.fixture
def context(tmp_path: Path) -> Any:
    return small_context(tmp_path, teacher=None)


def _job() -> Job:
    return Job("0", "trial", design(), 100, 1)


def test_it_waits_until_the_source_has_a_job_or_is_finished(context, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(serial.time, "sleep", waits.append)
    source = LaterSource([None, None, _job(), None, None])
    SerialExecutor(context, tmp_path).run(source)
    assert source.told == ["0"]
    assert waits == [serial.POLL_SECONDS] * 3


def test_an_interruption_ends_the_waiting(context, tmp_path, monkeypatch):
    executor = SerialExecutor(context, tmp_path)
    monkeypatch.setattr(serial.time, "sleep", lambda seconds: setattr(executor, "stop_requested", True))
    source = LaterSource([None, _job()])
    executor.run(source)
    assert source.told == []


def test_a_job_after_which_the_device_is_lost_is_booked_and_ends_the_session(context, tmp_path):
    lost = TrialResult("failed", seed=100, reason="AcceleratorError: an assert", device_lost=True)

    def work(*_: Any) -> Any:
        return lost
        yield

    source = LaterSource([_job(), _job()])
    with pytest.raises(WorkerError, match=r"trial 0 has ended with 'AcceleratorError: an assert'.*processes"):
        SerialExecutor(context, tmp_path, work).run(source)
    assert source.told == ["0"]


@pytest.mark.parametrize("lost", ["", "gone", "damaged"])
def test_what_goes_on_pays_for_what_it_does_again(tmp_path, lost):
    """The books are right whatever has become of the checkpoint from which it was to go on."""
    store = CheckpointStore(tmp_path / "checkpoints")
    context = given(small_context(tmp_path, teacher=None, stopping=StoppingSpec("front")), checkpoints=store)
    begun = Job("0", "trial", config := design(), 100, config.training.epochs)
    source = FixedSource([begun], stop_at=("0", 2), decision=Decision.PAUSE)
    SerialExecutor(context, tmp_path).run(source)
    (folder,) = (tmp_path / "checkpoints").iterdir()
    if lost == "gone":
        store.remove(folder.name)
    if lost == "damaged":
        (file,) = folder.iterdir()
        file.write_bytes(file.read_bytes()[:-100])
    going_on = Job("1", "trial", config, 100, config.training.epochs, continues="0")
    later = FixedSource([going_on])
    SerialExecutor(context, tmp_path).run(later)
    whole = FixedSource([Job("2", "trial", config, 100, config.training.epochs)])
    SerialExecutor(context, tmp_path).run(whole)
    spent = whole.results["2"].spent_macs
    again = lost in ("gone", "damaged")
    assert [epoch for epoch, _ in later.reports["1"]] == ([1, 2, 3] if again else [3])
    assert later.results["1"].spent_macs == (spent if again else spent - source.results["0"].spent_macs)
    assert later.results["1"].train_macs == whole.results["2"].train_macs
    assert later.results["1"].curve == whole.results["2"].curve
    assert store.kept() == []


def test_a_worker_that_dies_while_it_goes_on_does_not_pay_for_the_part_before(tmp_path):
    """The state that it leaves says what others have paid."""
    store = CheckpointStore(tmp_path / "checkpoints")
    context = small_context(
        tmp_path, teacher=None, stopping=StoppingSpec("front"), execution=ExecutionSpec(checkpoint_every=1)
    )
    context = given(context, checkpoints=store)
    config = design(epochs=4)
    source = FixedSource([Job("0", "trial", config, 100, 4)], stop_at=("0", 2), decision=Decision.PAUSE)
    SerialExecutor(context, tmp_path).run(source)
    going_on = Job("1", "trial", config, 100, 4, continues="0")
    steps = job_steps(going_on, context)
    assert next(steps).epoch == 3
    assert steps.send(Decision.CONTINUE).epoch == 4
    steps.close()  # as when it dies: its state after epoch 3 stays
    again = FixedSource([going_on])
    SerialExecutor(context, tmp_path).run(again)
    whole = FixedSource([Job("2", "trial", config, 100, 4)])
    SerialExecutor(context, tmp_path).run(whole)
    assert [epoch for epoch, _ in again.reports["1"]] == [4]
    before = source.results["0"].spent_macs
    assert again.results["1"].spent_macs == whole.results["2"].spent_macs - before
