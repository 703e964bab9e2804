"""What the serial executor does when there is nothing to do now, but may be later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_studies import design, small_context

from naskd.executors.attempts import WorkerError
from naskd.executors.local import serial
from naskd.executors.local.serial import SerialExecutor
from naskd.trials.jobs import Decision, Job, TrialResult


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
