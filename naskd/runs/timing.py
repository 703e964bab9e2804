"""Seconds of the steps of a training, and of the whole of it: a few steps of each phase are timed."""

import contextlib
import math
import statistics
import time
from collections.abc import Sequence
from functools import partial

import torch

from naskd.knowledge.rehearsed import RehearsedSource
from naskd.runs.bank_estimate import bank_of, told_of_bank
from naskd.schemes.scheme import TrainingOverError
from naskd.spec.design import TrialConfig
from naskd.training.cuda_graph import TIMED
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Job, TrialResult
from naskd.trials.outcome import Steps, failure_facts, passes_on
from naskd.trials.run import TrialRun, assistant_run, teacher_run

WARM_UP = 2 + sum(TIMED.values())
"""Steps before those on a GPU that records: by then it is known whether steps are replayed."""
LAPS = 5
"""Times that the same steps are timed: what disturbs one or two of them does not move the median."""
LAP_SECONDS, MOST_STEPS = 0.1, 50
"""How long these steps take, about, and how many they are at most; one where that takes longer."""
LAPS_SECONDS = 4.0
"""After so long no further lap is begun."""
STEP_SECONDS = 2.0
"""A step that takes longer ends the timing of a check: what takes as long or longer is not timed."""
PLAIN = 2.0
"""Times that a step with more threads takes as long, where it is plain that they do not help."""
SLOW = "one step takes long here"
"""Why a job is not timed; see :func:`timing_steps`."""


def seconds_by_threads(
    context: StudyContext, design: TrialConfig, numbers: Sequence[int]
) -> dict[int, float]:
    """Seconds of a step by the number of threads: two may wait for each other for long where something else runs.

    Args:
        context: The study's.
        design: Whose step.
        numbers: Of threads, fewest first. Each is tried in turns with the others, and has its median. One that takes
            more than twice as long as fewer of them is left after a step, and more of them are not tried.
    """
    found: dict[int, list[float]] = {}
    before = torch.get_num_threads()
    try:
        for _ in range(3):
            for number in sorted(numbers):
                torch.set_num_threads(number)
                run, _ = _run(Job("0", "trial", design, 0, 0), context)
                most = PLAIN * min((seconds[0] for seconds in found.values()), default=math.inf)
                found.setdefault(number, []).append(
                    statistics.median(_timed_laps(run, min(most, STEP_SECONDS)))
                )
                if found[number][0] > most:
                    break
            first = [seconds[0] for seconds in found.values()]
            if max(first) > PLAIN * min(first) or max(first) > STEP_SECONDS:
                break
    finally:
        torch.set_num_threads(before)
    return {number: statistics.median(seconds) for number, seconds in found.items()}


def timing_steps(job: Job, context: StudyContext, step_seconds: float = math.inf) -> Steps:
    """A job of an estimate: its result's metrics are ``seconds``, ``least`` and ``macs`` of the whole training.

    The first is by the median lap of each phase, the second by the fastest. And of each bank that it hears there is
    what an image takes, and how many images fill it. Where a step takes longer than `step_seconds` it fails, and says
    :data:`SLOW`.
    """
    try:
        run, heard = _run(job, context)
        laps = _laps_by_phase(run, step_seconds)
        if any(min(found) > step_seconds for found in laps.values()):
            return TrialResult("failed", job.seed, SLOW)
        steps = run.steps_by_phase()
        macs = sum(
            run.macs_per_image(epoch) * run.loop.images_per_epoch(epoch)
            + len(context.resources.data.val) * run.cost.unmerged_macs
            for epoch in range(run.total_epochs)
        )
        metrics = {
            "seconds": sum(statistics.median(laps[name]) * n for name, n in steps.items()),
            "least": sum(min(laps[name]) * n for name, n in steps.items()),
            "macs": macs,
        }
        for bank, source in heard.items():
            metrics |= told_of_bank(bank, source)
    except BaseException as failure:  # as in a trial
        if passes_on(failure):
            raise
        return TrialResult("failed", job.seed, **failure_facts(failure, context))
    return TrialResult("complete", job.seed, metrics=metrics)
    yield  # a generator, as every work is


def _run(job: Job, context: StudyContext) -> tuple[TrialRun, dict[str, RehearsedSource]]:
    """The training that is timed, and whom it hears, by the names of their banks."""
    if job.config is None:
        return teacher_run(context, context.prerequisites.teacher(job.label)), {}
    needed = context.prerequisites.of(job.config)
    if job.kind == "trial":
        design = job.config
        augmentation, unlabelled = design.training.augmentation, design.distillation.unlabelled
        sources = [context.sources.rehearsed(r, design.training, unlabelled) for r in needed.heard]
        names = [bank_of(recipe, augmentation) for recipe in needed.heard]
        run = TrialRun(
            design.distillation,
            design.training,
            partial(context.networks.student, design.architecture),
            context,
            0,
            context.images.taught(augmentation, unlabelled),
            tuple(sources),
            design.architecture,
        )
        return run, dict(zip(names, sources, strict=True))
    made = {recipe.artifact_id: recipe for recipe in needed.made}
    assistant = made[job.label].assistant
    assert assistant is not None
    above = [made[one] for one in made[job.label].requires]
    sources = [context.sources.rehearsed(recipe, assistant.training) for recipe in above]
    names = [bank_of(recipe, assistant.training.augmentation) for recipe in above]
    return assistant_run(assistant, 0, tuple(sources), context), dict(zip(names, sources, strict=True))


def _laps_by_phase(run: TrialRun, most: float) -> dict[str, list[float]]:
    """Seconds of a step in each phase by its name, in order; phases whose steps do the same are timed once.

    It ends with the first phase whose step takes longer than `most` seconds.
    """
    kinds: dict[tuple[object, ...], list[float]] = {}
    found: dict[str, list[float]] = {}
    for epoch in range(run.total_epochs):
        name = run.loop.phase_of(epoch).name
        if name in found:
            continue
        if found:
            _end_phase(run, epoch - 1)
        kind = run.kind_of_step(epoch)
        if kind not in kinds:
            kinds[kind] = _timed_laps(run, most, epoch)
        found[name] = kinds[kind]
        if min(found[name]) > most:
            break
    return found


def _end_phase(run: TrialRun, epoch: int) -> None:
    """Have a phase whose last epoch this is (from 0) leave what a later one may need: a step, and what comes after.

    What it has learned in a few steps is no reason to end here.
    """
    after = run.loop.phase_of(epoch).after_epoch
    if after is None:
        return
    run.loop.epoch = epoch
    means = run.loop.run_epoch(max_steps=1)
    with contextlib.suppress(TrainingOverError):
        after(means)


def _timed_laps(run: TrialRun, most: float = math.inf, epoch: int = 0) -> list[float]:
    """Seconds of a step, timed several times over the same steps of an epoch.

    The first time is not counted: there kernels are chosen, memory is found, and supervisors are asked.

    Args:
        run: The training.
        most: Seconds; a step that takes longer is timed once.
        epoch: From 0; the first of its phase.
    """

    def lap(steps: int) -> float:
        run.loop.epoch = epoch
        started = time.perf_counter()
        run.loop.run_epoch(max_steps=steps)
        return (time.perf_counter() - started) / steps

    for _ in range(WARM_UP if run.context.resources.compute.cuda_graphs else 1):
        lap(1)
    if (one := lap(1)) > most:
        return [one]
    per_epoch = max(1, run.loop.images_per_epoch(epoch) // run.loop.spec.batch_size)
    steps = min(max(1, round(LAP_SECONDS / one)), MOST_STEPS, per_epoch)
    if steps > 1:
        lap(steps)
    ends, laps = time.perf_counter() + LAPS_SECONDS, [lap(steps)]
    while len(laps) < LAPS and time.perf_counter() < ends:
        laps.append(lap(steps))
    return laps
