"""A job, epoch by epoch: every outcome is data, whatever a design does."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from naskd.schemes import SCHEMES
from naskd.schemes.scheme import TrainingOverError
from naskd.spec.design import Cost
from naskd.trials.context import StudyContext
from naskd.trials.exchanging import LEAST_PATIENCE, Exchanging
from naskd.trials.jobs import Decision, Job, SiblingResult, TrialResult, Waiting
from naskd.trials.making import artifact_steps, with_whole_networks
from naskd.trials.measures import ObjectiveError
from naskd.trials.memory import bounded_memory
from naskd.trials.outcome import (
    Progress,
    Steps,
    failure_facts,
    free_memory,
    keep_student,
    leave,
    leave_for_pause,
    passes_on,
    take_up,
)
from naskd.trials.prerequisites import ArtifactRecipe
from naskd.trials.run import TrialRun, start_run, trial_metrics

Report = Callable[[int, Mapping[str, float]], Decision]


def job_steps(job: Job, context: StudyContext) -> Steps:
    """A job of either kind, epoch by epoch, for executors that are called back by an engine."""
    with bounded_memory(context.resources.compute.device.type):
        return (yield from (trial_steps if job.kind == "trial" else artifact_steps)(job, context))


def run_job(job: Job, context: StudyContext, report: Report) -> TrialResult:
    """Do a job to its end, or until the source says stop.

    Args:
        job: A trial or an artifact.
        context: The study's, on this process.
        report: Called after each epoch with the epoch (from 1) and its metrics.
    """
    steps = job_steps(job, context)
    try:
        progress = next(steps)
        while True:
            progress = steps.send(report(progress.epoch, progress.metrics))
    except StopIteration as end:
        return cast(TrialResult, end.value)


def trial_steps(job: Job, context: StudyContext) -> Steps:
    """Train a student; see :data:`Steps`.

    Where the context keeps checkpoints, the training goes on from its newest one. A peer that trains apart may end with
    :class:`~naskd.trials.jobs.Waiting`; who stays behind has no metrics.
    """
    started = time.perf_counter()
    environment = context.resources.compute.environment()
    run: TrialRun | None = None

    def result(
        status: Literal["complete", "failed", "stopped"], reason: str = "", **more: Any
    ) -> TrialResult:
        return TrialResult(
            status,
            seed=job.seed,
            reason=reason,
            metrics=_metrics(run.curve, run.cost, run.train_macs, run.measures, run.scheme.leaves_from)
            if run is not None and run.curve and not job.place
            else {},
            measures=run.measures if run is not None else {},
            curve=tuple(run.curve) if run is not None else (),
            train_macs=run.train_macs if run is not None else 0,
            spent_macs=run.totals().spent_macs - run.booked.spent_macs if run is not None else 0,
            asked_images=run.totals().asked_images - run.booked.asked_images if run is not None else 0,
            forward_images=run.totals().forward_images - run.booked.forward_images if run is not None else 0,
            bank_bytes=run.bank_bytes() if run is not None else {},
            wall_seconds=(run.seconds - run.booked.seconds if run is not None else 0.0)
            + time.perf_counter()
            - started,
            environment=environment,
            **more,
        )

    try:
        assert job.config is not None
        config = job.config
        run = take_up(
            lambda: with_whole_networks(
                lambda: start_run(config, context, job.seed, job.siblings, place=job.place)[0],
                config,
                context,
            ),
            job,
            context,
        )
        compared = context.prerequisites.of(config).compared
        exchanging: Exchanging | None = None
        if job.place is not None:
            peers = SCHEMES[config.distillation.scheme].trainings(config.distillation)
            exchanging = Exchanging(job, run, peers, context)
            exchanging.tell()
        started = time.perf_counter()
        last = min(job.until_epoch, run.total_epochs)
        epoch_seconds = 0.0
        while run.epoch < last:
            if exchanging is not None:
                exchanging.leave(started)
                patience = max(LEAST_PATIENCE, epoch_seconds) if job.patient else 0.0
                if (after := exchanging.hear(patience)) is not None:
                    so_far = result("stopped", "it waits for its peers")
                    return Waiting(**vars(so_far), after=after)
            began = time.perf_counter()
            metrics = run.advance(run.epoch + 1)
            epoch_seconds = time.perf_counter() - began
            if exchanging is not None and run.epoch < last:
                exchanging.tell()
            reason = f"stopped by the stopping rule after epoch {run.epoch}"
            so_far = result("stopped", reason)
            if exchanging is None:
                leave_for_pause(run, job, context, last, started)
            waited = time.perf_counter()
            decision = yield Progress(run.epoch, metrics, run.epoch == last, so_far)
            started += time.perf_counter() - waited
            if decision is not Decision.CONTINUE:
                return so_far
            leave(run, job, context, last, started)
        if job.place:
            return result("complete")
        agreement = run.agreement(compared) if compared is not None else None
        done = result("complete", teacher_agreement=agreement)
        metrics = trial_metrics(run, config, done.metrics, context.resources.spec.objectives, job.seed)
        return dataclasses.replace(
            done,
            metrics=metrics,
            sha256=keep_student(run.scheme.deployed, config, job, context),
            siblings=_siblings(run, done, compared, job, context),
        )
    except TrainingOverError as failure:
        return result("failed", str(failure))
    except BaseException as failure:  # the one broad except: whatever a design does, the study must go on
        if passes_on(failure):
            raise
        return result("failed", **failure_facts(failure, context))
    finally:
        # The traceback of a failure would keep the networks alive.
        run = None
        free_memory(context)


def _metrics(
    curve: Sequence[Mapping[str, float]],
    cost: Cost,
    train_macs: int,
    measures: Mapping[str, float],
    leaves_from: int = 0,
) -> dict[str, float]:
    # What was reached before by a network that does not leave is not this design's.
    own = curve[leaves_from:] or curve[-1:]
    return {
        **measures,
        "val_accuracy": curve[-1]["val_accuracy"],
        "best_val_accuracy": max(point["val_accuracy"] for point in own),
        "macs": cost.macs,
        "n_params": cost.n_params,
        "size_bytes": cost.size_bytes,
        "train_macs": train_macs,
    }


def _siblings(
    run: TrialRun, done: TrialResult, compared: ArtifactRecipe | None, job: Job, context: StudyContext
) -> tuple[SiblingResult, ...]:
    """What a finished training has shown of the other designs that were wanted, as if each had been trained itself.

    One whose objectives cannot be computed has failed, and no other.
    """
    found = []
    for config, sibling in run.siblings.whole(run.epoch):
        curve, macs = run.siblings.curve(config, run.curve), run.train_macs_of(sibling.cost)
        result = TrialResult("complete", job.seed, curve=curve, train_macs=macs, environment=done.environment)
        known, network = _metrics(curve, sibling.cost, macs, {}), sibling.network
        try:
            metrics = trial_metrics(
                run, config, known, context.resources.spec.objectives, job.seed, network=network, curve=curve
            )
            agreement = run.sibling_agreement(config, network, compared) if compared is not None else None
            sha256 = keep_student(network, config, job, context)
            result = dataclasses.replace(result, metrics=metrics, teacher_agreement=agreement, sha256=sha256)
        except ObjectiveError as failure:
            facts = failure_facts(failure, context)
            if facts["out_of_memory"] or facts["device_lost"] or facts["disk_full"]:
                raise  # the machine is to blame, and the whole training is to be made again
            result = dataclasses.replace(result, status="failed", metrics=known, **facts)
        found.append(SiblingResult(config, result))
    return tuple(found)
