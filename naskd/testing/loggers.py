"""What every logger must do, whoever registered it."""

import math
import time
from pathlib import Path

import pytest

from naskd.spec.loggers import LOGGERS
from naskd.study.observer import StudyObserver
from naskd.study.snapshot import Snapshot
from naskd.testing.studies import design
from naskd.testing.suite import Suite
from naskd.trials.jobs import Job, TrialResult

METRICS = {"val_accuracy": 0.5, "loss": 1.5, "logits": 0.25}


def point(epoch: int) -> dict[str, float]:
    """What an epoch tells, as a point of a learning curve."""
    return {"epoch": epoch, **METRICS}


def job(number: int = 0) -> Job:
    """A trial of three epochs."""
    return Job(str(number), "trial", design(), 100 + number, 3)


def teacher_job() -> Job:
    """The making of a teacher; it belongs to no design."""
    return Job("0123456789abcdef", "artifact", None, 1, 3, label="teacher")


def complete(number: int = 0) -> TrialResult:
    """How a trial ends well."""
    return TrialResult("complete", 100 + number, metrics={"val_accuracy": 0.5, "macs": 1000}, train_macs=3000)


def failed(number: int = 0) -> TrialResult:
    """How a trial fails before its first epoch."""
    return TrialResult(
        "failed", 100 + number, reason="ValueError: no", error="Traceback (most recent call last)"
    )


class LoggerSuite(Suite):
    """Tests of loggers.

    Example::

        class TestMine(LoggerSuite):
            names = "my_logger"

    They call it as a study does, and in orders that only a bad day brings. Loggers whose package is missing are
    skipped.

    Attributes:
        seconds: Within so many, the end of a search must be over.
    """

    registry = LOGGERS
    seconds = 30.0

    @pytest.fixture
    def logger(self, name: str, tmp_path: Path) -> StudyObserver:
        """The logger of a new search."""
        if LOGGERS[name].package:
            pytest.importorskip(LOGGERS[name].package)
        return self.build(name, tmp_path)

    def build(self, name: str, folder: Path) -> StudyObserver:
        """The logger of a search whose run directory is `folder`."""
        found: StudyObserver = LOGGERS.make(name, folder=folder, study="made up")
        return found

    def end(self, logger: StudyObserver) -> None:
        """Close it, in time."""
        began = time.monotonic()
        logger.closed()
        assert time.monotonic() - began < self.seconds, "the end of the search waits for it"

    def test_the_card_describes_a_logger(self, name: str, logger: StudyObserver) -> None:
        """What its implementation returns is an observer."""
        card = LOGGERS[name]
        assert card.name == name
        assert card.title
        assert isinstance(logger, StudyObserver)
        assert logger.name
        self.end(logger)

    def test_it_follows_a_search(self, name: str, logger: StudyObserver) -> None:
        """A teacher, and two trials at once."""
        logger.asked(teacher_job())
        logger.epoch(teacher_job(), 1, point(1))
        logger.told(teacher_job(), complete())
        logger.asked(job(0))
        logger.asked(job(1))
        for epoch in (1, 2, 3):
            logger.epoch(job(0), epoch, point(epoch))
            logger.epoch(job(1), epoch, point(epoch))
            logger.looked(Snapshot(running="trial 1", epoch=epoch, epochs=3))
        logger.told(job(1), complete(1))
        logger.told(job(0), complete(0))
        self.end(logger)

    def test_a_search_that_does_nothing_can_be_closed(self, name: str, logger: StudyObserver) -> None:
        """A finished study that is resumed; and closing twice is closing once."""
        self.end(logger)
        self.end(logger)

    def test_trials_that_fail_or_are_interrupted_are_followed(self, name: str, logger: StudyObserver) -> None:
        """Without an epoch, without an end, and with epochs that a lost worker repeats."""
        logger.asked(job(0))
        logger.told(job(0), failed(0))
        logger.asked(job(1))
        for epoch in (1, 2, 1, 2):
            logger.epoch(job(1), epoch, point(epoch))
        self.end(logger)

    def test_no_order_of_events_raises(self, name: str, logger: StudyObserver) -> None:
        """Epochs of a trial that was never asked for or has ended, ends without a beginning, events after the end."""
        logger.epoch(job(0), 3, point(3))
        logger.told(job(1), complete(1))
        logger.told(job(1), complete(1))
        logger.epoch(job(1), 1, point(1))
        logger.asked(job(1))
        self.end(logger)
        logger.asked(job(2))
        logger.epoch(job(2), 1, point(1))
        logger.told(job(2), complete(2))
        self.end(logger)

    def test_no_value_raises(self, name: str, logger: StudyObserver) -> None:
        """Infinite and missing numbers, none at all, and an accuracy that is nobody's."""
        logger.asked(job(0))
        logger.epoch(job(0), 1, {"val_accuracy": math.nan, "loss": math.inf})
        logger.epoch(job(0), 2, {})
        logger.looked(Snapshot())
        logger.told(job(0), TrialResult("stopped", 100, reason="my rule", metrics={"val_accuracy": math.nan}))
        self.end(logger)

    def test_a_run_directory_that_cannot_be_written_does_not_raise(self, name: str, tmp_path: Path) -> None:
        """Its place is taken by a file."""
        if LOGGERS[name].package:
            pytest.importorskip(LOGGERS[name].package)
        (tmp_path / "taken").write_text("")
        logger = self.build(name, tmp_path / "taken")
        logger.asked(job(0))
        logger.epoch(job(0), 1, point(1))
        logger.told(job(0), complete(0))
        self.end(logger)
