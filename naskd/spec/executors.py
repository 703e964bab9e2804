"""Who runs the trials: cards of executors."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from naskd.spec.option import Option
from naskd.spec.paths import absolute, missing_file
from naskd.spec.registry import Registry
from naskd.spec.validation import Problem, format_value


@dataclass(frozen=True)
class ExecutorCard:
    """The torch-free description of an executor.

    Args:
        name: As studies say it.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:Class"`` of the :class:`~naskd.executors.Executor`, or the class.
        options: Settings that it alone reads, keys of a study's ``[execution]``. An option whose default is None may
            be left out, and then the executor chooses.
        elsewhere: Trials run in other processes than the search.
        prepare: ``"module:function"``, or a function: what it begins as soon as a study that names it has been read,
            and does not wait for.
        check: ``"module:function"``, or a function: what of ``[execution]`` does not go together. Called with the
            right ones of its keys by name and the folder of the study file; the keys of its problems are those of the
            table. It must not need torch.
        able: ``"module:function"``, or a function: of the study's context, what of this machine does not suffice; it
            raises an :class:`~naskd.spec.errors.InputError` or a :class:`~naskd.spec.errors.RunError` that says it.
            Called before a search makes anything, after all that `check` says is right.
        packages: What it needs beyond naskd's own dependencies, as it is imported.
        brings: ``"module:function"``, or a function: from a study to the :class:`~naskd.trials.facts.World`
            that it runs in, for an executor that needs no images. "": images are loaded, and the executor is made
            of the study's context and the run directory.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    elsewhere: bool = False
    prepare: str | Callable[[], None] = ""
    check: str | Callable[[Mapping[str, Any], Path], Iterable[Problem]] = ""
    able: str | Callable[[Any], object] = ""
    brings: str | Callable[[Any], Any] = ""
    packages: tuple[str, ...] = ()


EXECUTORS: Registry[ExecutorCard] = Registry("executor")

_WORKERS = "trials at once, at most; default what {} holds"


def _check_processes(given: Mapping[str, Any], _: Path) -> list[Problem]:
    workers, places = given.get("workers"), given.get("trials_per_device")
    if given.get("device") != "cpu" or workers is None or places is None or workers <= places:
        return []
    allowed = f"at most execution.trials_per_device = {places}: the CPU is one device"
    return [Problem("workers", format_value(workers), allowed)]


def _check_ray(given: Mapping[str, Any], _: Path) -> list[Problem]:
    found = []
    gpus, address = given.get("gpus_per_trial", 0), given.get("address")
    if gpus > 1 and gpus % 1:
        allowed = "a whole number, or at most 1: a fraction shares one device"
        found.append(Problem("gpus_per_trial", format_value(gpus), allowed))
    port = re.fullmatch(r"(?!\w+://)\S+:(\d{1,5})", address or "")
    if address not in (None, "auto", "local") and not (port and 0 < int(port[1]) < 65536):
        allowed = (
            "HOST:PORT of its head, such as 10.0.0.1:6379, on a machine of the cluster; 'auto' or 'local'"
        )
        hint = "from elsewhere use `ray job submit`" if "://" in address else ""
        found.append(Problem("address", format_value(address), allowed, hint))
    try:
        Path.home()
    except RuntimeError:
        # A container that is run by a number, without an entry for it among the users.
        allowed = "with a home folder, where Ray keeps its token: set HOME to a folder that can be written to"
        found.append(Problem("executor", format_value("ray"), allowed))
    return found


def _check_replay(given: Mapping[str, Any], base: Path) -> list[Problem]:
    table = str(given.get("table") or "")
    if ":" in table:
        return missing_file("table", table.rpartition(":")[0], base)
    if table and not absolute(table, base).is_dir():
        return [
            Problem("table", format_value(table), "a folder that is there, or 'path/to/file.py:function'")
        ]
    return []


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
        options={
            "workers": Option(None, _WORKERS.format("the machine"), low=1, kind=int),
            "trials_per_device": Option(
                None,
                "trials at once on one device, each in a process; the CPU is one device. Default 1 on a GPU, "
                "and on the CPU as many as threads go into its cores",
                low=1,
                kind=int,
            ),
            "mps": Option(
                True,
                "let students that share a GPU compute at the same time, through NVIDIA's Multi-Process Service "
                "where it is installed; else they take turns",
            ),
        },
        elsewhere=True,
        prepare="naskd.executors.local.server:start_server",
        check=_check_processes,
        able="naskd.executors.local.processes:devices_for",
    )
)
EXECUTORS.register(
    ExecutorCard(
        name="ray",
        title="trials at once on this machine or a Ray cluster, through Ray Tune",
        paper="Liaw et al.: Tune: a research platform for model selection. 2018, arXiv 1807.05118",
        implementation="naskd.executors.ray.tune:RayTuneExecutor",
        options={
            "address": Option(
                None,
                "of a Ray cluster; default RAY_ADDRESS, or else a cluster of this machine that ends with the search",
                kind=str,
            ),
            "workers": Option(None, _WORKERS.format("the cluster"), low=1, kind=int),
            "cpus_per_trial": Option(
                None, "CPUs that a trial reserves; default threads", above=0, kind=float
            ),
            "gpus_per_trial": Option(
                None,
                "GPUs of a trial; fractions share a device; default 1 where the cluster has GPUs, else 0",
                low=0,
                kind=float,
            ),
        },
        elsewhere=True,
        check=_check_ray,
        able="naskd.executors.ray.connect:check_cluster",
        packages=("ray",),
    )
)
EXECUTORS.register(
    ExecutorCard(
        name="replay",
        title="recorded trainings, looked up on a fake clock: for questions about search",
        paper="",
        implementation="naskd.executors.local.replay:ReplayExecutor",
        options={
            "table": Option(
                None,
                "folder of a recorded table, relative to the study file; or 'path/to/file.py:function', which returns "
                "a RecordedTable",
                pattern=r".+\.py:[A-Za-z_]\w*|[^:]+",
                kind=str,
                path=True,
                required=True,
            ),
            "workers": Option(1, "trainings at once, on the fake clock", low=1),
        },
        check=_check_replay,
        brings="naskd.executors.local.replay:recorded_world",
    )
)
