"""TensorBoard: an event file for each job, in ``tensorboard/`` of the run directory."""

import itertools
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from naskd.loggers.thread import JobLogger, LoggedRun, unlike
from naskd.study.observer import StudyObserver


def tensorboard_logger(folder: Path, study: str) -> StudyObserver:
    """A logger of :data:`~naskd.spec.loggers.LOGGERS`.

    Args:
        folder: The run directory.
        study: Its name; an event file has none.
    """
    return JobLogger("tensorboard", lambda: partial(_TensorBoardLog, folder))


def _places(home: Path) -> Iterator[Path]:
    """It, and then others of that name with a number."""
    yield home
    for number in itertools.count(2):
        yield home.with_name(f"{home.name}.{number}")


class _TensorBoardLog:
    """An event file. Numbers are stored in 32 bits."""

    def __init__(self, folder: Path, run: LoggedRun) -> None:
        # SummaryWriter would start a thread and a queue for each run; when the disk is full, its thread dies and
        # the next write waits for ever. The writer under it raises.
        from tensorboardX.event_file_writer import EventsWriter

        self.run, self.epoch = run, 0
        self.logged: Mapping[str, int | float] = {}
        home = folder / "tensorboard" / run.name
        if run.kind == "trial":  # a ledger gives a number once: what is there is of one that was removed
            home = next(place for place in _places(home) if not any(place.glob("events*")))
        home.mkdir(parents=True, exist_ok=True)
        self.events = EventsWriter(str(home / "events"))

    def log(self, epoch: int, values: Mapping[str, int | float]) -> None:
        from tensorboardX.summary import scalar

        self.epoch, self.logged = epoch, values
        self._write(scalar(name, value) for name, value in values.items())

    def close(self, status: str, reason: str, final: Mapping[str, int | float]) -> None:
        from tensorboardX.summary import hparams

        self.log(self.epoch, unlike(self.logged, final))
        self._write(hparams({**self.run.design, "kind": self.run.kind, "status": status}, final))
        self.events.close()

    def _write(self, summaries: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [value for summary in summaries for value in summary.value]
        event = Event(wall_time=time.time(), step=self.epoch, summary=Summary(value=values))
        self.events.write_event(event)
        self.events.flush()
