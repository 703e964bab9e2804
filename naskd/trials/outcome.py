"""What all jobs do around their training: begin from a checkpoint, leave one, and turn what went wrong into data."""

import contextlib
import gc
import io
import logging
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from naskd.spec.errors import one_line
from naskd.store.files import out_of_space
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.measures import ObjectiveError
from naskd.trials.run import TrialRun

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a job stands after an epoch.

    Args:
        epoch: Epochs done, from 1.
        metrics: Of the epoch.
        last: Whether it was the last one.
        result: Of a trial, as if it were stopped here; None for an artifact.
    """

    epoch: int
    metrics: Mapping[str, float]
    last: bool
    result: TrialResult | None = None


Steps = Generator[Progress, Decision, TrialResult]
"""A job that yields after each epoch, is sent the decision, and returns its result. It never raises but for an
interrupt: what a design or a machine does to a training is data."""


Work = Callable[[Job, StudyContext], Steps]
"""How a worker does a job: :func:`~naskd.trials.steps.job_steps`, but for tests of what a worker may do."""


def checkpoint_key(job: Job) -> str:
    """Under which a job's state is kept: its training, whatever its number in the ledger."""
    return (
        job.job_id if job.config is None or job.kind == "artifact" else f"{job.config.config_id}-{job.seed}"
    )


def failure_facts(failure: Exception, context: StudyContext) -> dict[str, Any]:
    """What a result says of an exception: reason in a line, traceback, and whether device or disk is to blame."""
    cause = failure.__cause__ if isinstance(failure, ObjectiveError) else failure
    full = isinstance(cause, torch.cuda.OutOfMemoryError)
    return {
        "reason": one_line(failure),
        "error": traceback.format_exc(),
        "out_of_memory": full,
        "device_lost": not full and not context.resources.compute.answers(),
        "disk_full": out_of_space(cause or failure),
    }


def free_memory(context: StudyContext) -> None:
    """Give the device's memory back, so that a neighbour on it can have it."""
    if context.resources.compute.device.type == "cuda":
        gc.collect()
        # Torch before 2.12 asserts here after a recording that failed; the memory is then only given back later.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def take_up(make: Callable[[], TrialRun], job: Job, context: StudyContext) -> TrialRun:
    """A run that goes on from the newest checkpoint of the same training; from its start where none can be used."""
    run, store, compute = make(), context.resources.checkpoints, context.resources.compute
    data = None if store is None else store.load(checkpoint_key(job))
    if store is None or data is None:
        return run
    try:
        run.load_state_dict(torch.load(io.BytesIO(data), map_location=compute.device, weights_only=True))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever torch raises at what is no state of this run
        if not compute.answers():
            raise
        _LOG.warning("a checkpoint of %s cannot be used: %s", checkpoint_key(job), one_line(error))
        store.remove(checkpoint_key(job))
        return make()
    return run


def leave(run: TrialRun, job: Job, context: StudyContext, last: int, started: float) -> None:
    """Keep the state of a training at the epochs that the study chose, but not of one that is over."""
    every = context.resources.spec.execution.checkpoint_every
    if context.resources.checkpoints is None or not every or run.epoch % every or run.epoch == last:
        return
    state = io.BytesIO()
    seconds = run.seconds + time.perf_counter() - started
    torch.save({**run.state_dict(), "seconds": seconds}, state)
    try:
        context.resources.checkpoints.save(checkpoint_key(job), run.epoch, state.getvalue())
    except OSError as error:
        _LOG.warning("no checkpoint after epoch %d: %s; the training goes on without", run.epoch, error)
