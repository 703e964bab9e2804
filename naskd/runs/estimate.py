"""What a search would cost, from a few timed steps, before anything starts."""

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from naskd.executors.local.processes import devices_of
from naskd.knowledge.source import OnlineSource
from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.training.cuda_graph import TIMED
from naskd.trials.context import StudyContext
from naskd.trials.run import TrialRun, assistant_run, teacher_run

WARM_UP = 2 + sum(TIMED.values())
"""Steps before those on a GPU that records: by then it is known whether steps are replayed."""
TIMED_STEPS = 4
"""Steps timed for each design, after one that is not counted."""


def estimate_search(context: StudyContext, designs: Sequence[TrialConfig]) -> dict[str, Any]:
    """Time a few steps of some designs and scale up.

    Supervisors are stood in for by untrained networks of the same shape, which cost the same.

    Args:
        context: The study's.
        designs: A random sample of the space.

    Returns:
        ``trial_seconds`` (``min``, ``max`` and ``median`` over the designs), ``trial_train_macs`` likewise,
        ``teacher_seconds`` (0 when it exists or needs no training), ``assistant_seconds`` (of those that `designs` ask
        for), ``trials`` until the first limit of the budget, ``seconds`` of the whole search, ``workers`` (trials at
        once), ``train_macs`` of its trials, ``budget_seconds``, ``n_timed``.

    Raises:
        InputError: There is no design to time.
    """
    if not designs:
        raise InputError("no design of the space was admitted: see the limits in the study file")
    context.resources.compute.apply_threads()
    spec = context.resources.spec
    seconds, macs = [], []
    for design in designs:
        run = TrialRun(
            design.distillation,
            design.training,
            partial(context.networks.student, design.architecture),
            context,
            0,
            context.images.views(design.training.augmentation),
            _stand_ins(context, design),
            design.architecture,
        )
        per_step, steps = _time_steps(run)
        seconds.append(per_step * steps)
        macs.append(
            sum(
                run.macs_per_image(epoch) * run.loop.images_per_epoch(epoch)
                + len(context.resources.data.val) * run.cost.macs
                for epoch in range(run.total_epochs)
            )
        )
    teacher_seconds = sum(_teacher_seconds(context), start=0.0)
    assistant_seconds = sum(_assistant_seconds(context, designs), start=0.0)
    mean_seconds, mean_macs = statistics.fmean(seconds), statistics.fmean(macs)
    budget = spec.budget
    workers = _trials_at_once(context)
    affordable = [
        float(limit)
        for limit in (
            budget.trials,
            budget.seconds
            and max(0.0, budget.seconds - teacher_seconds - assistant_seconds) / mean_seconds * workers,
            budget.train_macs and budget.train_macs / mean_macs,
        )
        if limit is not None
    ]
    # The trial that runs when a limit is reached is finished.
    trials = math.ceil(min(affordable))
    return {
        "n_timed": len(designs),
        "trial_seconds": {"min": min(seconds), "max": max(seconds), "median": statistics.median(seconds)},
        "trial_train_macs": {"min": min(macs), "max": max(macs), "median": statistics.median(macs)},
        "teacher_seconds": teacher_seconds,
        "assistant_seconds": assistant_seconds,
        "trials": trials,
        "seconds": teacher_seconds + assistant_seconds + math.ceil(trials / workers) * mean_seconds,
        "workers": workers,
        "budget_seconds": budget.seconds,
        "train_macs": trials * mean_macs,
    }


def _trials_at_once(context: StudyContext) -> int:
    execution = context.resources.spec.execution
    if execution.executor == "processes":
        return sum(len(device.slots) for device in devices_of(execution, context.resources.compute))
    return int(execution.settings().get("workers") or 1)


def _stand_ins(context: StudyContext, design: TrialConfig) -> tuple[OnlineSource, ...]:
    return tuple(context.sources.stand_in(recipe) for recipe in context.prerequisites.of(design).heard)


def _teacher_seconds(context: StudyContext) -> Iterator[float]:
    """The time of each teacher that is trained here and is not there yet."""
    for name, teacher in context.resources.spec.teacher_specs().items():
        recipe = context.prerequisites.teacher(name)
        if teacher.trained_here and not context.designs.has_artifact(recipe.artifact_id):
            per_step, steps = _time_steps(teacher_run(context, recipe))
            yield per_step * steps


def _assistant_seconds(context: StudyContext, designs: Sequence[TrialConfig]) -> Iterator[float]:
    """The time of each assistant that the designs ask for and that is not there yet."""
    seen: set[str] = set()
    for design in designs:
        made = {recipe.artifact_id: recipe for recipe in context.prerequisites.of(design).made}
        for artifact_id, recipe in made.items():
            if recipe.assistant is None or artifact_id in seen or context.designs.has_artifact(artifact_id):
                continue
            seen.add(artifact_id)
            parent = context.sources.stand_in(made[recipe.requires[0]])
            per_step, steps = _time_steps(assistant_run(recipe.assistant, 0, parent, context))
            yield per_step * steps


def _time_steps(run: TrialRun) -> tuple[float, float]:
    """Seconds of one step, and the steps of the whole training, evaluation included as the steps it is worth."""
    for _ in range(WARM_UP if run.context.resources.compute.cuda_graphs else 1):
        run.loop.run_epoch(max_steps=1)
        run.loop.epoch = 0  # the first epoch again: there may be only one
    started = time.perf_counter()
    run.loop.run_epoch(max_steps=TIMED_STEPS)
    per_step = (time.perf_counter() - started) / TIMED_STEPS
    return per_step, run.equivalent_steps
