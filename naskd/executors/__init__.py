"""Executors: who runs the jobs of a study. One file per executor; their cards are in :mod:`naskd.spec.executors`."""

from typing import Protocol

from naskd.spec.executors import EXECUTORS, ExecutorCard
from naskd.trials.jobs import TrialSource


class Executor(Protocol):
    """Pulls jobs from a source until it is finished, or until it is asked to stop."""

    def run(self, source: TrialSource) -> None:
        """Do the work, until the source is finished or a stop is requested.

        Every job that was asked for has been told on return, unless the process was told to stop at once.
        """


__all__ = ["EXECUTORS", "Executor", "ExecutorCard"]
