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

from naskd.executors import EXECUTORS
from naskd.executors.local.processes import devices_of
from naskd.knowledge.source import KnowledgeSource
from naskd.spec.cpus import available_cpus
from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS, InputError, RunError, one_line
from naskd.training.cuda_graph import TIMED
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.outcome import Steps, failure_facts, passes_on
from naskd.trials.run import TrialRun, assistant_run, teacher_run

_LOG = logging.getLogger(__name__)

_TEACHER, _ASSISTANT = "teacher:", "assistant:"

WARM_UP = 2 + sum(TIMED.values())
"""Steps before those on a GPU that records: by then it is known whether steps are replayed."""
_BACKWARD = 3
"""Passes that a step of a training takes: one forward, and about two backward."""
_ASKED_AHEAD = 4
"""Passes of a supervisor in a step that is timed, about: it is asked about several batches at once."""
TIMED_STEPS = 4
"""Steps timed for each design, after one that is not counted."""


def estimate_search(
    context: StudyContext,
    designs: Sequence[TrialConfig],
    *,
    apart: bool = False,
    teachers: bool = True,
    said: Callable[[str], None] = _LOG.warning,
) -> dict[str, Any]:
    """Time a few steps of some designs and scale up.

    Supervisors are stood in for by untrained networks of the same shape, which cost the same. What cannot be timed is
    said and left out.

    Args:
        context: The study's.
        designs: A random sample of the space.
        apart: In a worker process, which a design may end; all that designs are made of must be in files.
        teachers: Time teachers and assistants that are to be trained, too; else their seconds are 0.
        said: Is told of each design that cannot be timed, and why.

    Returns:
        ``trial_seconds`` (``min``, ``max`` and ``median`` over the designs), ``trial_train_macs`` likewise,
        ``teacher_seconds`` (0 when it exists or needs no training), ``assistant_seconds`` (of those that `designs` ask
        for), ``trials`` until the first limit of the budget, ``seconds`` of the whole search, ``workers`` (trials at
        once), ``train_macs`` that are executed for its trials and what they share, so that what is remembered of a
        teacher counts once; ``shared_train_macs``, of these what they share; ``budget_seconds``, ``n_timed``,
        ``busy`` (that the machine was busy before anything was timed, in words; empty where it was not).

    Raises:
        InputError: There is no design to time.
        RunError: None of them can be timed, or a teacher cannot.
    """
    if not designs:
        raise InputError("no design of the space was admitted: see the limits in the study file")
    spec, busy = context.resources.spec, busy_said()
    trials = [Job(str(i), "trial", design, 0, 0) for i, design in enumerate(designs)]
    made = [*_teacher_jobs(context), *_assistant_jobs(context, designs)] if teachers else []
    source = _Fixed([*made, *trials], said)
    _time(source, context, apart=apart)
    there = [number for number, job in enumerate(trials) if job.job_id in source.results]
    timed = [source.results[trials[number].job_id].metrics for number in there]
    if not timed:
        raise RunError(f"no design can be timed; the last one: {source.failed}")
    seconds, macs = [m["seconds"] for m in timed], [m["macs"] for m in timed]
    teacher_seconds, assistant_seconds = (
        sum((r.metrics["seconds"] for name, r in source.results.items() if name.startswith(kind)), start=0.0)
        for kind in (_TEACHER, _ASSISTANT)
    )
    mean_seconds = statistics.fmean(seconds)
    own_macs, shared_macs = _executed(context, [designs[number] for number in there], macs)
    budget = spec.budget
    workers = _trials_at_once(context)
    affordable = [
        float(limit)
        for limit in (
            budget.trials,
            budget.seconds
            and max(0.0, budget.seconds - teacher_seconds - assistant_seconds) / mean_seconds * workers,
            budget.train_macs and max(1.0, budget.train_macs - shared_macs) / own_macs,
        )
        if limit is not None
    ]
    # The trial that runs when a limit is reached is finished.
    affordable_trials = math.ceil(min(affordable))
    return {
        "n_timed": len(timed),
        "trial_seconds": {"min": min(seconds), "max": max(seconds), "median": statistics.median(seconds)},
        "trial_train_macs": {"min": min(macs), "max": max(macs), "median": statistics.median(macs)},
        "teacher_seconds": teacher_seconds,
        "assistant_seconds": assistant_seconds,
        "trials": affordable_trials,
        "seconds": teacher_seconds
        + assistant_seconds
        + math.ceil(affordable_trials / workers) * mean_seconds,
        "workers": workers,
        "budget_seconds": budget.seconds,
        "train_macs": affordable_trials * own_macs + shared_macs,
        "shared_train_macs": shared_macs,
        "busy": busy,
    }


def _executed(
    context: StudyContext, designs: Sequence[TrialConfig], counted: Sequence[float]
) -> tuple[float, float]:
    """What is executed for a training in the mean, and once for all of them; see ``spent_macs`` of a result.

    Args:
        context: The study's.
        designs: Some, at least one.
        counted: Of each, as if nothing were remembered: where nothing else is known.
    """
    own: list[float] = []
    shared: dict[str, float] = {}
    for design, whole in zip(designs, counted, strict=True):
        try:
            price = context.designs.training_macs(design)
        except USERS as error:  # a user's scheme or loss may raise anything
            _LOG.debug("what a training takes is not known before: %s", one_line(error))
            own.append(whole)
        else:
            own.append(price.own)
            shared |= price.shared
    return statistics.fmean(own), sum(shared.values())


def busy_said() -> str:
    """That more wants to run here than there are processors for, so that what is timed now takes long; else empty."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not every system says
        return ""
    if load <= (cpus := available_cpus()):
        return ""
    on = f"{cpus} CPU{'' if cpus == 1 else 's'}"
    return (
        f"this machine is busy (load {load:.1f} on {on}): times are longer than they will be on an idle one"
    )


def timing_macs(context: StudyContext, design: TrialConfig, macs: int) -> float:
    """Multiply-accumulates that timing a design takes, about: its steps and what is asked of its supervisors.

    Args:
        context: The study's.
        design: The design.
        macs: Of one image, with the branches that are merged where it leaves.
    """
    heard = sum(context.sources.stand_in(recipe).macs for recipe in context.prerequisites.of(design).heard)
    steps = TIMED_STEPS + (WARM_UP if context.resources.compute.cuda_graphs else 1)
    return float(steps * design.training.batch_size * (_BACKWARD * macs + _ASKED_AHEAD * heard))


def teachers_timing_macs(context: StudyContext) -> float:
    """The same of the teachers that are still to be trained."""
    found = 0.0
    for job in _teacher_jobs(context):
        recipe = context.prerequisites.teacher(job.label)
        batch = context.resources.spec.teacher_specs()[job.label].training.batch_size
        found += (TIMED_STEPS + 1) * batch * _BACKWARD * context.sources.stand_in(recipe).macs
    return found


def _time(source: "_Fixed", context: StudyContext, *, apart: bool) -> None:
    """Do the jobs of a source one after the other."""
    spec, executor = context.resources.spec, "processes" if apart else "serial"
    options = (("workers", 1),) if apart else ()
    execution = dataclasses.replace(spec.execution, executor=executor, retries=0, options=options)
    alone = dataclasses.replace(context.resources, spec=dataclasses.replace(spec, execution=execution))
    # No note of a fault is left: of what is timed, nothing goes on later.
    with TemporaryDirectory(prefix="naskd-timing-") as folder:
        EXECUTORS.load(executor)(StudyContext.of(alone), Path(folder), timing_steps).run(source)


def _trials_at_once(context: StudyContext) -> int:
    execution = context.resources.spec.execution
    if execution.executor == "processes":
        return sum(len(device.slots) for device in devices_of(execution, context.resources.compute))
    return int(execution.settings().get("workers") or 1)


def _stand_ins(context: StudyContext, design: TrialConfig) -> tuple[KnowledgeSource, ...]:
    heard = context.prerequisites.of(design).heard
    return tuple(context.sources.stand_in_heard(recipe, design.training) for recipe in heard)


class _Fixed:
    """The jobs of an estimate, in order; see :class:`~naskd.trials.jobs.TrialSource`."""

    def __init__(self, jobs: list[Job], said: Callable[[str], None]) -> None:
        self._waiting = deque(jobs)
        self._said = said
        self.results: dict[str, TrialResult] = {}
        self.failed = ""

    @property
    def finished(self) -> bool:
        return not self._waiting

    def ask(self) -> Job | None:
        return self._waiting.popleft() if self._waiting else None

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        return Decision.CONTINUE

    def tell(self, job: Job, result: TrialResult) -> None:
        if result.status == "complete":
            self.results[job.job_id] = result
            return
        self.failed = result.reason
        if job.job_id.startswith(_TEACHER):
            raise RunError(f"the teacher {job.label!r} cannot be timed: {result.reason}")
        what = "an assistant of design" if job.kind == "artifact" else "design"
        name = job.config.config_id if job.config is not None else ""
        self._said(f"{what} {name} cannot be timed, and is left out: {result.reason}")


def timing_steps(job: Job, context: StudyContext) -> Steps:
    """A job of an estimate: its result's metrics are ``seconds`` and ``macs`` of the whole training."""
    try:
        run = _run(job, context)
        per_step, steps = _time_steps(run)
        macs = sum(
            run.macs_per_image(epoch) * run.loop.images_per_epoch(epoch)
            + len(context.resources.data.val) * run.cost.unmerged_macs
            for epoch in range(run.total_epochs)
        )
    except BaseException as failure:  # as in a trial
        if passes_on(failure):
            raise
        return TrialResult("failed", job.seed, **failure_facts(failure, context))
    return TrialResult("complete", job.seed, metrics={"seconds": per_step * steps, "macs": macs})
    yield  # a generator, as every work is


def _run(job: Job, context: StudyContext) -> TrialRun:
    """The training that is timed."""
    if job.config is None:
        return teacher_run(context, context.prerequisites.teacher(job.label))
    if job.kind == "trial":
        design = job.config
        return TrialRun(
            design.distillation,
            design.training,
            partial(context.networks.student, design.architecture),
            context,
            0,
            context.images.views(design.training.augmentation),
            _stand_ins(context, design),
            design.architecture,
        )
    made = {recipe.artifact_id: recipe for recipe in context.prerequisites.of(job.config).made}
    recipe = made[job.label]
    assert recipe.assistant is not None
    training = recipe.assistant.training
    above = tuple(context.sources.stand_in_heard(made[one], training) for one in recipe.requires)
    return assistant_run(recipe.assistant, 0, above, context)


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


def _time_steps(run: TrialRun) -> tuple[float, float]:
    """Seconds of one step, and the steps of the whole training, evaluation included as the steps it is worth."""
    for _ in range(WARM_UP if run.context.resources.compute.cuda_graphs else 1):
        run.loop.run_epoch(max_steps=1)
        run.loop.epoch = 0  # the first epoch again: there may be only one
    started = time.perf_counter()
    run.loop.run_epoch(max_steps=TIMED_STEPS)
    per_step = (time.perf_counter() - started) / TIMED_STEPS
    return per_step, run.equivalent_steps
