"""What a search would cost, from a few timed steps, before anything starts."""

import dataclasses
import logging
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from naskd.executors import EXECUTORS
from naskd.executors.local.processes import devices_of
from naskd.runs.bank_estimate import bank_bytes, bank_seconds, foreseen_banks
from naskd.runs.timing import LAPS, SLOW, WARM_UP, timing_steps
from naskd.spec.cpus import available_cpus
from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS, InputError, RunError, one_line
from naskd.spec.study import ExecutionSpec
from naskd.training.compute import Compute
from naskd.trials.context import StudyContext
from naskd.trials.facts import TrainingMacs
from naskd.trials.jobs import Decision, Job, TrialResult

_LOG = logging.getLogger(__name__)

_TEACHER, _ASSISTANT = "teacher:", "assistant:"

_BACKWARD = 3
"""Passes that a step of a training takes: one forward, and about two backward."""
_ASKED = 2
"""Passes of a supervisor for each step that is timed: later it answers from memory."""
TIMING_SECONDS = 30.0
"""After so long a check times no further design."""


def estimate_search(
    context: StudyContext,
    designs: Sequence[TrialConfig],
    *,
    beyond: Sequence[TrialConfig] = (),
    sample: Sequence[TrialConfig] = (),
    apart: bool = False,
    teachers: bool = True,
    said: Callable[[str], None] = _LOG.warning,
    step_seconds: float = math.inf,
    timing_seconds: float = math.inf,
) -> dict[str, Any]:
    """Time a few steps of some designs and scale up.

    Supervisors are stood in for by untrained networks of the same shape, which cost the same. What they say is
    remembered, as in a search, and what it takes to remember all of it is told apart. What cannot be timed is said and
    left out.

    Args:
        context: The study's.
        designs: A random sample of the space.
        beyond: More of that sample, too large to be timed here: each takes as much longer than the largest of `designs`
            as it has more multiply-accumulates.
        sample: All of that sample: what supervisors say in any of them is to be remembered.
        apart: In a worker process, which a design may end; all that designs are made of must be in files.
        teachers: Time teachers and assistants that are to be trained, too; else their seconds are 0.
        said: Is told of each design that cannot be timed, and why.
        step_seconds: A step that takes longer ends the timing. What is left counts as `beyond`; so `designs` are given
            from the smallest on.
        timing_seconds: After so long no further design is begun; likewise.

    Returns:
        ``trial_seconds`` (``min``, ``max`` and ``median`` over the designs), ``trial_train_macs`` likewise (as if
        nothing were remembered, as in a record), ``own_train_macs`` (what a budget counts for a trial, on average),
        ``teacher_seconds`` (0 when it exists or needs no training), ``assistant_seconds`` (of those that `designs`
        ask for), ``bank_seconds`` (until all that supervisors say is remembered), ``trials`` until the first limit of
        the budget, ``seconds`` of the whole search, ``least_seconds`` (the same by the fastest of all steps: what it
        takes on a machine that does nothing else), ``workers`` (trials at once), ``threads`` of each, ``train_macs``
        that are executed for its trials and what they share, ``shared_train_macs`` of the latter, ``budget_seconds``,
        ``n_timed``, ``busy`` (that the machine was busy before anything was timed, in words; empty where it was not).

    Raises:
        InputError: There is no design to time.
        TooSlowError: A step of a teacher, or of the first design, takes longer than `step_seconds`.
        RunError: None of them can be timed, or a teacher cannot.
    """
    if not designs:
        raise InputError("no design of the space was admitted: see the limits in the study file")
    busy, budget, workers = busy_said(), context.resources.spec.budget, _trials_at_once(context)
    bound = _Bound(step_seconds, timing_seconds)
    found = _measured(
        context, designs, beyond, sample, apart=apart, teachers=teachers, said=said, bound=bound
    )
    before = found.teacher["seconds"] + found.assistant["seconds"] + found.bank
    least_before = found.teacher["least"] + found.assistant["least"] + found.bank
    mean_seconds, mean_macs = statistics.fmean(found.seconds), statistics.fmean(found.macs)
    affordable = [
        float(limit)
        for limit in (
            budget.trials,
            budget.seconds and max(0.0, budget.seconds - before) / mean_seconds * workers,
            # What the first trial has made is spent when it is told: one is trained, whatever that takes.
            budget.train_macs and max(1.0, budget.train_macs - found.shared_macs) / mean_macs,
        )
        if limit is not None
    ]
    # The trial that runs when a limit is reached is finished.
    trials = math.ceil(min(affordable))
    rounds = math.ceil(trials / workers)
    return {
        "n_timed": found.n_timed,
        "trial_seconds": _range(found.seconds),
        "trial_train_macs": _range(found.whole),
        "own_train_macs": mean_macs,
        "teacher_seconds": found.teacher["seconds"],
        "assistant_seconds": found.assistant["seconds"],
        "bank_seconds": found.bank,
        "bank_bytes": found.bank_bytes,
        "trials": trials,
        "seconds": before + rounds * mean_seconds,
        "least_seconds": least_before + rounds * statistics.fmean(found.least),
        "workers": workers,
        "threads": context.resources.spec.execution.threads,
        "budget_seconds": budget.seconds,
        "train_macs": trials * mean_macs + found.shared_macs,
        "shared_train_macs": found.shared_macs,
        "busy": busy,
    }


class TooSlowError(RunError):
    """A step takes too long to be timed."""


@dataclasses.dataclass(frozen=True)
class _Bound:
    """How long timing may take; see :func:`estimate_search`."""

    step_seconds: float
    timing_seconds: float


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What was timed, and what is known without.

    Args:
        n_timed: Designs.
        seconds: Of each design, those beyond the timed ones too.
        least: The same by the fastest steps.
        macs: Multiply-accumulates that are executed for its training alone.
        whole: The same as if nothing were remembered, as records compare them.
        shared_macs: Of what is made once for all of them, without teachers.
        teacher: ``seconds`` and ``least`` of all teachers.
        assistant: Likewise.
        bank: Seconds until all is remembered.
        bank_bytes: That this takes on the disk.
    """

    n_timed: int
    seconds: Sequence[float]
    least: Sequence[float]
    macs: Sequence[float]
    whole: Sequence[float]
    shared_macs: float
    teacher: Mapping[str, float]
    assistant: Mapping[str, float]
    bank: float
    bank_bytes: float


def _measured(
    context: StudyContext,
    designs: Sequence[TrialConfig],
    beyond: Sequence[TrialConfig],
    sample: Sequence[TrialConfig],
    *,
    apart: bool,
    teachers: bool,
    said: Callable[[str], None],
    bound: _Bound,
) -> _Measured:
    """See :func:`estimate_search`."""
    trials = [Job(str(i), "trial", design, 0, 0) for i, design in enumerate(designs)]
    made = [*_teacher_jobs(context), *_assistant_jobs(context, designs)] if teachers else []
    source = _Fixed([*made, *trials], said, bound.timing_seconds)
    _time(source, context, apart=apart, step_seconds=bound.step_seconds)
    beyond = [*(designs[int(job.job_id)] for job in source.left if job.kind == "trial"), *beyond]
    timed = {i: source.results[str(i)].metrics for i in range(len(designs)) if str(i) in source.results}
    if source.left and not timed:
        raise TooSlowError(SLOW)
    if not timed:
        raise RunError(f"no design can be timed; the last one: {source.failed}")
    counted = [(designs[i], one["macs"]) for i, one in timed.items()]
    taken = [
        *(_price(context, *one) for one in counted),
        *(context.designs.training_macs(one) for one in beyond),
    ]
    macs = [one.own for one in taken]
    told: list[Mapping[str, float]] = [result.metrics for result in source.results.values()]
    told += foreseen_banks(context, [*designs, *beyond, *sample], told)

    def of(kind: str) -> dict[str, float]:
        made = [result.metrics for name, result in source.results.items() if name.startswith(kind)]
        return {name: sum((one[name] for one in made), start=0.0) for name in ("seconds", "least")}

    return _Measured(
        len(timed),
        _scaled([one["seconds"] for one in timed.values()], macs),
        _scaled([one["least"] for one in timed.values()], macs),
        macs,
        [one.whole for one in taken],
        sum({name: n for one in taken for name, n in one.shared.items()}.values(), start=0.0),
        of(_TEACHER),
        of(_ASSISTANT),
        bank_seconds(told),
        bank_bytes(told),
    )


def _price(context: StudyContext, design: TrialConfig, counted: float) -> TrainingMacs:
    """What a training takes; as was counted while it was timed, where nothing else is known."""
    try:
        return context.designs.training_macs(design)
    except USERS as error:  # a user's scheme or loss may raise anything
        _LOG.debug("what a training takes is not known before: %s", one_line(error))
        return TrainingMacs(counted, {})


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "max": max(values), "median": statistics.median(values)}


def _scaled(timed: Sequence[float], macs: Sequence[float]) -> list[float]:
    """What all designs take: of those beyond the timed ones what the largest timed one does, by their `macs`."""
    largest = max(range(len(timed)), key=lambda i: macs[i])
    return [*timed, *(timed[largest] * more / macs[largest] for more in macs[len(timed) :])]


def busy_said() -> str:
    """That more wants to run here than there are processors for, so that what is timed now takes long; else empty."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not every system says
        return ""
    if load <= (cpus := available_cpus()):
        return ""
    on = f"{cpus} CPU{'' if cpus == 1 else 's'}"
    return f"the machine was busy (load {load:.1f} on {on}): on an idle one the lower times hold, or less"


def timing_macs(context: StudyContext, design: TrialConfig, macs: int) -> float:
    """Multiply-accumulates that timing a design takes, about: its steps and what is asked of its supervisors.

    Args:
        context: The study's.
        design: The design.
        macs: Of one image, with the branches that are merged where it leaves.
    """
    heard = sum(context.sources.stand_in(recipe).macs for recipe in context.prerequisites.of(design).heard)
    return float(design.training.batch_size * (_steps(context) * _BACKWARD * macs + _ASKED * heard))


def teachers_timing_macs(context: StudyContext) -> float:
    """The same of the teachers that are still to be trained."""
    found = 0.0
    for job in _teacher_jobs(context):
        recipe = context.prerequisites.teacher(job.label)
        batch = context.resources.spec.teacher_specs()[job.label].training.batch_size
        found += _steps(context) * batch * _BACKWARD * context.sources.stand_in(recipe).macs
    return found


def _steps(context: StudyContext) -> int:
    """That are executed to time a training whose steps are long; more where they are short."""
    return LAPS + 1 + (WARM_UP if context.resources.compute.cuda_graphs else 1)


def _time(source: "_Fixed", context: StudyContext, *, apart: bool, step_seconds: float) -> None:
    """Do the jobs of a source one after the other. One Ctrl-C ends it: an estimate by some of them would be wrong."""
    spec, executor = context.resources.spec, "processes" if apart else "serial"
    options = (("workers", 1),) if apart else ()
    execution = dataclasses.replace(spec.execution, executor=executor, retries=0, options=options)
    alone = dataclasses.replace(context.resources, spec=dataclasses.replace(spec, execution=execution))
    # No note of a fault is left: of what is timed, nothing goes on later.
    with TemporaryDirectory(prefix="naskd-timing-") as folder:
        work = partial(timing_steps, step_seconds=step_seconds)
        EXECUTORS.load(executor)(StudyContext.of(alone), Path(folder), work).run(source)
    if not source.finished:
        raise KeyboardInterrupt


def _trials_at_once(context: StudyContext) -> int:
    execution = context.resources.spec.execution
    if execution.executor == "processes":
        return sum(len(device.slots) for device in devices_of(execution, context.resources.compute))
    if execution.executor == "ray":
        return _held_by_ray(execution, context.resources.compute)
    return int(execution.settings().get("workers") or 1)


def _held_by_ray(execution: ExecutionSpec, compute: Compute) -> int:
    """Trials at once on a cluster of this machine, which a search would start; of another one it is not known here."""
    settings = execution.settings("ray")
    workers, address = settings["workers"], settings["address"] or os.environ.get("RAY_ADDRESS")
    if address not in (None, "local"):
        if workers is None:
            _LOG.warning(
                "how many trials the Ray cluster at %s holds at once is not known before a search connects to it: "
                "what is said of time is of one after the other; execution.workers says how many",
                address,
            )
        return int(workers or 1)
    gpus = torch.cuda.device_count() if compute.device.type == "cuda" else 0
    asked = settings["gpus_per_trial"]
    there = {"cpus": available_cpus(), "gpus": gpus}
    needs = {
        "cpus": settings["cpus_per_trial"] or execution.threads,
        "gpus": min(1, gpus) if asked is None else asked,
    }
    held = min(math.floor(there[name] / need + 1e-9) for name, need in needs.items() if need)
    return max(1, min(held, workers or held))


class _Fixed:
    """The jobs of an estimate, in order; see :class:`~naskd.trials.jobs.TrialSource`.

    Attributes:
        left: Jobs that are not timed, since a step or all of them take too long.
    """

    def __init__(self, jobs: list[Job], said: Callable[[str], None], seconds: float) -> None:
        self._waiting = deque(jobs)
        self._said = said
        self._ends = time.monotonic() + seconds
        self.results: dict[str, TrialResult] = {}
        self.left: list[Job] = []
        self.failed = ""

    @property
    def finished(self) -> bool:
        return not self._waiting

    def ask(self) -> Job | None:
        if time.monotonic() >= self._ends:
            self._leave()
        return self._waiting.popleft() if self._waiting else None

    def _leave(self, *first: Job) -> None:
        self.left += [*first, *self._waiting]
        self._waiting.clear()

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        return Decision.CONTINUE

    def tell(self, job: Job, result: TrialResult) -> None:
        if result.status == "complete":
            self.results[job.job_id] = result
            return
        if result.reason == SLOW:
            self._leave(job)
            return
        self.failed = result.reason
        if job.job_id.startswith(_TEACHER):
            raise RunError(f"the teacher {job.label!r} cannot be timed: {result.reason}")
        what = "an assistant of design" if job.kind == "artifact" else "design"
        name = job.config.config_id if job.config is not None else ""
        self._said(f"{what} {name} cannot be timed, and is left out: {result.reason}")


def _teacher_jobs(context: StudyContext) -> Iterator[Job]:
    """Each teacher that is trained here and is not there yet."""
    for name, teacher in context.resources.spec.teacher_specs().items():
        recipe = context.prerequisites.teacher(name)
        if teacher.trained_here and not context.designs.has_artifact(recipe.artifact_id):
            yield Job(f"{_TEACHER}{name}", "artifact", None, 0, 0, label=name)


def _assistant_jobs(context: StudyContext, designs: Sequence[TrialConfig]) -> Iterator[Job]:
    """Each assistant that the designs ask for and that is not there yet."""
    seen: set[str] = set()
    for design in designs:
        for recipe in context.prerequisites.of(design).made:
            name = recipe.artifact_id
            if recipe.assistant is None or name in seen or context.designs.has_artifact(name):
                continue
            seen.add(name)
            yield Job(f"{_ASSISTANT}{name}", "artifact", design, 0, 0, label=name)
