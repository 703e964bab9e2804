"""What all jobs do around their training: begin from a checkpoint, leave one, and turn what went wrong into data."""

import contextlib
import gc
import hashlib
import io
import logging
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from naskd.networks.student_file import student_bytes
from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS, DamagedError, one_line
from naskd.spec.secrets import redacted
from naskd.spec.sizes import sides
from naskd.spec.timeouts import OutOfTimeError
from naskd.store.files import out_of_space
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult, training_key
from naskd.trials.measures import ObjectiveError
from naskd.trials.resources import seen
from naskd.trials.run import TrialRun

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a job stands after an epoch.

    Args:
        epoch: Epochs done, from 1.
        metrics: Of the epoch.
        last: Whether it was the last one.
        result: As if it were stopped here; of an artifact what was spent, and nothing else.
    """

    epoch: int
    metrics: Mapping[str, float]
    last: bool
    result: TrialResult | None = None


Steps = Generator[Progress, Decision, TrialResult]
"""A job that yields after each epoch, is sent the decision, and returns its result. It never raises but for an
interrupt: what a design or a machine does to a training is data."""


_TRAINING = "training"
"""Key of a checkpoint under which it says whose it is; those of earlier versions do not."""

Work = Callable[[Job, StudyContext], Steps]
"""How a worker does a job: :func:`~naskd.trials.steps.job_steps`, but for tests of what a worker may do."""


def checkpoint_key(job: Job) -> str:
    """Under which a job's state is kept: its training, whatever its number in the ledger.

    Of a peer that trains apart, and is not the first, it is below that of the training.
    """
    if job.config is None or job.kind == "artifact":
        return job.job_id
    training = training_key(job.config.config_id, job.seed)
    return f"{training}/peer{job.place}" if job.place else training


def paused_key(job: Job, trial: str) -> str:
    """Under which the state of a training is kept from which a paused trial of this number may go on."""
    return f"{checkpoint_key(job)}.{trial}"


def passes_on(error: BaseException) -> bool:
    """Whether something that was raised in a training is about the process, and not about the training.

    ``SystemExit`` is not: a user's code that leaves has failed, whatever exit code it wants.
    """
    return isinstance(error, KeyboardInterrupt | GeneratorExit | OutOfTimeError)


def failed(job: Job, so_far: TrialResult | None, reason: str, error: str = "") -> TrialResult:
    """What is booked of a job that its executor has ended, with what it had reported."""
    had = so_far or TrialResult("failed", seed=job.seed)
    return replace(had, status="failed", reason=reason, error=error or reason)


def failure_facts(failure: BaseException, context: StudyContext) -> dict[str, Any]:
    """What a result says of an exception: reason in a line, traceback, and whether device or disk is to blame."""
    cause = failure.__cause__ if isinstance(failure, ObjectiveError) else failure
    full = isinstance(cause, torch.cuda.OutOfMemoryError)
    return {
        "reason": one_line(failure),
        "error": redacted(traceback.format_exc()),
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
    """A run that goes on from the newest checkpoint of the same training; from its start where none can be used.

    Its own checkpoint comes first, then what the trial has left that it goes on with.
    """
    store, run = context.resources.checkpoints, make()
    if store is None:
        return run
    paused = (paused_key(job, job.continues),) if job.continues else ()
    for key in (checkpoint_key(job), *paused):
        data = store.load(key)
        if data is None:
            continue
        try:
            _restore(run, data, job, context)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever torch raises at what is no state of this run
            if not context.resources.compute.answers():
                raise
            _LOG.warning("a checkpoint of %s cannot be used: %s", checkpoint_key(job), one_line(error))
            store.remove(key)
            run = make()
            continue
        if key in paused:
            run.booked = run.totals()  # the trial that was paused has paid for it
        return run
    return run


def _restore(run: TrialRun, data: bytes, job: Job, context: StudyContext) -> None:
    state = torch.load(io.BytesIO(data), map_location=context.resources.compute.device, weights_only=True)
    if state.get(_TRAINING, checkpoint_key(job)) != checkpoint_key(job):
        raise DamagedError(f"it is of another training, {state[_TRAINING]}")
    run.load_state_dict(state)


def leave(run: TrialRun, job: Job, context: StudyContext, last: int, started: float) -> None:
    """Keep the state of a training at the epochs that the study chose, but not of one that is over."""
    every = context.resources.spec.execution.checkpoint_every
    if every and run.epoch % every == 0 and run.epoch != last:
        _keep_if_possible(checkpoint_key(job), run, job, context, started)


def leave_for_pause(run: TrialRun, job: Job, context: StudyContext, last: int, started: float) -> None:
    """Keep the state of a trial that its rule may pause after this epoch, before anybody is told of the epoch.

    Apart from other checkpoints: a worker that dies goes on from an epoch that was told of.
    """
    if context.resources.spec.stopping.pauses and run.epoch != last:
        _keep_if_possible(paused_key(job, job.job_id), run, job, context, started)


def _keep_if_possible(key: str, run: TrialRun, job: Job, context: StudyContext, started: float) -> None:
    try:
        keep(key, run, job, context, started)
    except OSError as error:
        _LOG.warning("no checkpoint after epoch %d: %s; the training goes on without", run.epoch, error)


def keep(key: str, run: TrialRun, job: Job, context: StudyContext, started: float) -> None:
    """Keep the state of a training, where a study keeps any.

    Raises:
        OSError: It cannot be written.
    """
    if context.resources.checkpoints is None:
        return
    state = io.BytesIO()
    seconds = run.seconds + time.perf_counter() - started
    torch.save({**run.state_dict(), "seconds": seconds, _TRAINING: checkpoint_key(job)}, state)
    context.resources.checkpoints.save(key, run.epoch, state.getbuffer())


def forget(job: Job, context: StudyContext, *, paused: bool) -> None:
    """Remove what a job has left that has been told; of a paused one that from which it may go on stays.

    Of peers that train apart all stays until the last of them has ended: what one has told, another may need again.
    """
    store = context.resources.checkpoints
    if store is None or job.place is not None:
        return
    store.remove(checkpoint_key(job))
    if job.kind == "trial" and context.resources.spec.stopping.pauses:
        for trial in (*(() if paused else (job.job_id,)), *((job.continues,) if job.continues else ())):
            store.remove(paused_key(job, trial))


def keep_student(network: nn.Module, config: TrialConfig, job: Job, context: StudyContext) -> str:
    """Keep what a finished training deploys; the SHA-256 of its file, or "" where none is kept.

    That there is no copy is no fault of the training: whoever wants the student can train it again.

    Args:
        network: What is deployed.
        config: Its design: the job's, or another one that its training gives.
        job: Of the training.
        context: The study's.
    """
    students, resources = context.resources.students, context.resources
    if students is None:
        return ""
    try:
        data = student_bytes(
            network,
            resources.data.class_names,
            (resources.data.in_channels, *sides(resources.data.resolution)),
            seed=job.seed,
            of="search",
            **seen(resources),
        )
        students.keep(training_key(config.config_id, job.seed), data)
    except USERS as error:  # a full disk, a lost connection, or a user's network that cannot be described
        _LOG.warning("the student of trial %s is not kept: %s", job.job_id, one_line(error))
        return ""
    return hashlib.sha256(data).hexdigest()
