"""A logger of one's own: a line of JSON for each event, in the run directory."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from naskd.spec.loggers import LOGGERS, LoggerCard
from naskd.study.observer import StudyObserver
from naskd.trials.jobs import Job, TrialResult


class Lines(StudyObserver):
    """Writes ``events.jsonl``."""

    def __init__(self, folder: Path, study: str) -> None:
        self.path = folder / "events.jsonl"
        self._write("opened", study=study)

    def asked(self, job: Job) -> None:
        """A job begins."""
        self._write("asked", job=job.job_id, kind=job.kind)

    def epoch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> None:
        """A job has done an epoch."""
        self._write("epoch", job=job.job_id, **{**metrics, "epoch": epoch})

    def told(self, job: Job, result: TrialResult) -> None:
        """A job has ended."""
        self._write("told", job=job.job_id, status=result.status)

    def closed(self) -> None:
        """The search is over."""
        self._write("closed")

    def _write(self, event: str, **facts: Any) -> None:
        # A search does not end because its log cannot be written.
        with contextlib.suppress(OSError), open(self.path, "a") as file:
            file.write(json.dumps({"event": event, **facts}) + "\n")


LOGGERS.register(
    LoggerCard(name="lines", title="lines of JSON in the run directory", paper="", implementation=Lines)
)
