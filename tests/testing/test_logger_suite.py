"""The suite of loggers passes for ours and fails for loggers that are wrong in one way each."""

import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from naskd.spec.loggers import LOGGERS
from naskd.study.observer import StudyObserver
from naskd.testing import LoggerSuite

from .broken import registered


class TestCatalogue(LoggerSuite):
    names = tuple(card.name for card in LOGGERS if not card.package or find_spec(card.package))


class Good(StudyObserver):
    """Writes a line an event."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.txt"

    def write(self, line: object) -> None:
        try:
            with open(self.path, "a") as file:
                file.write(f"{line}\n")
        except OSError:
            return

    def asked(self, job):
        self.write(job.job_id)

    def epoch(self, job, epoch, metrics):
        self.write((job.job_id, epoch, dict(metrics)))

    def told(self, job, result):
        self.write((job.job_id, result.status))


class Orderly(Good):
    """Knows trials that were asked for alone."""

    def __init__(self, folder):
        super().__init__(folder)
        self.known = {}

    def asked(self, job):
        self.known[job.job_id] = []

    def epoch(self, job, epoch, metrics):
        self.known[job.job_id].append(epoch)

    def told(self, job, result):
        self.known.pop(job.job_id, None)


class DesignsOnly(Good):
    def asked(self, job):
        self.write(job.config.architecture)


class NumbersOnly(Good):
    def epoch(self, job, epoch, metrics):
        self.write(int(1000 * metrics["val_accuracy"]))


class ClosesOnce(Good):
    def closed(self):
        del self.path


class Slow(Good):
    def closed(self):
        time.sleep(0.3)


class NeedsFolder(Good):
    def write(self, line):
        with open(self.path, "a") as file:
            file.write(f"{line}\n")


class Growing(Good):
    """Believes that epochs grow."""

    last = 0

    def epoch(self, job, epoch, metrics):
        assert epoch > self.last
        self.last = epoch

    def told(self, job, result):
        self.last = 0


class NoObserver:
    def __init__(self, folder):
        pass

    closed = asked = epoch = told = looked = lambda *given: None
    name = "none"


class Suite(LoggerSuite):
    seconds = 0.2


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        (Orderly, "test_no_order_of_events_raises"),
        (DesignsOnly, "test_it_follows_a_search"),
        (NumbersOnly, "test_no_value_raises"),
        (ClosesOnce, "test_a_search_that_does_nothing_can_be_closed"),
        (Slow, "test_it_follows_a_search"),
        (Growing, "test_trials_that_fail_or_are_interrupted_are_followed"),
        (NoObserver, "test_the_card_describes_a_logger"),
    ],
)
def test_a_broken_logger_is_caught(bad: type, check: str, tmp_path: Path) -> None:
    run = getattr(Suite(), check)
    run("tensorboard", Good(tmp_path))
    with pytest.raises(Exception):  # noqa: B017, PT011  (what a broken logger raises is its own affair)
        run("tensorboard", bad(tmp_path))


def test_a_logger_that_needs_its_folder_is_caught(tmp_path: Path) -> None:
    from dataclasses import replace

    made = [
        replace(
            LOGGERS["tensorboard"],
            name=kind.__name__,
            package="",
            implementation=lambda folder, study, kind=kind: kind(folder),
        )
        for kind in (Good, NeedsFolder)
    ]
    check = Suite().test_a_run_directory_that_cannot_be_written_does_not_raise
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    with registered(LOGGERS, *made):
        check("Good", tmp_path / "good")
        with pytest.raises(NotADirectoryError):
            check("NeedsFolder", tmp_path / "bad")
