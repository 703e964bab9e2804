"""Executors: who runs the jobs of a study. One file per executor, registered here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from naskd.executors.local.server import start_server
from naskd.spec.registry import Registry
from naskd.trials.jobs import TrialSource


class Executor(Protocol):
    """Pulls jobs from a source until it is finished, or until it is asked to stop."""

    def run(self, source: TrialSource) -> None:
        """Do the work, until the source is finished or a stop is requested.

        Every job that was asked for has been told on return, unless the process was told to stop at once.
        """


@dataclass(frozen=True)
class ExecutorCard:
    """The torch-free description of an executor.

    Args:
        name: As studies say it.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: See :class:`~naskd.spec.registry.Card`.
        elsewhere: Trials run in other processes than the search.
        prepare: What it begins as soon as a study that names it has been read, and does not wait for.
    """

    name: str
    title: str
    paper: str
    implementation: str | type[Any]
    elsewhere: bool = False
    prepare: Callable[[], None] | None = None


EXECUTORS: Registry[ExecutorCard] = Registry("executor")

EXECUTORS.register(
    ExecutorCard(
        name="serial",
        title="one trial at a time in this process; the reference",
        paper="",
        implementation="naskd.executors.local.serial:SerialExecutor",
    )
)

EXECUTORS.register(
    ExecutorCard(
        name="processes",
        title="trials at once in processes of this machine, several on a device",
        paper="",
        implementation="naskd.executors.local.processes:ProcessesExecutor",
        elsewhere=True,
        prepare=start_server,
    )
)

EXECUTORS.register(
    ExecutorCard(
        name="ray",
        title="trials at once on this machine or a Ray cluster, through Ray Tune",
        paper="Liaw et al.: Tune: a research platform for model selection. 2018, arXiv 1807.05118",
        implementation="naskd.executors.ray.tune:RayTuneExecutor",
        elsewhere=True,
    )
)

__all__ = ["EXECUTORS", "Executor", "ExecutorCard"]
