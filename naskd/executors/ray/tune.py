"""Trials on a Ray cluster: Ray Tune runs them, the study decides.

Tune's searcher and its scheduler are two thin faces of one :class:`~naskd.trials.jobs.TrialSource`: proposals,
turned-away designs, stopping, budgets and books are those of the serial executor. Differs from Tune's own Optuna
searcher, which tells stopped trials as complete, loses trials with NaN and leaves zombies: here nothing but the source
writes books.

A Tune trial is one attempt at a job (:mod:`~naskd.executors.attempts`). What is tried again is a new Tune trial, before
any other: Tune's own retries come after everything that is pending.
"""

import dataclasses
import gc
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from naskd.executors.attempts import Attempt, Attempts, interrupts
from naskd.executors.packing import Arrays, Parcel, pack, unpack
from naskd.executors.ray.callbacks import build_callbacks, flat_design
from naskd.executors.ray.connect import ClusterError, connect
from naskd.executors.ray.remote_store import DepotArtifacts, DepotCheckpoints, start_depot
from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.study import ExecutionSpec
from naskd.store.cache import node_cache
from naskd.store.checkpoints import CheckpointStore
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult, TrialSource
from naskd.trials.outcome import Steps, Work
from naskd.trials.steps import job_steps

_LOG = logging.getLogger(__name__)

SLOTS_SECONDS = 2.0
"""How long the size of the cluster is believed."""

_TUNE_SETTINGS = {
    # The study's storage is the truth: Tune's snapshots of itself are never read.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A user's file that opens "classes.txt" finds it with any executor: a private cluster's workers stay where we are.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
}


class Dispatch:
    """What searcher and scheduler share: which Tune trial carries which job, and what comes next.

    An error of the source ends the search and is raised by :meth:`raise_failure`; inside of Tune it would be lost.

    Args:
        source: Of the jobs.
        context: The study's, in this process.
        resources: Of a Tune trial, by attempt; and how many of them may run at once now.
    """

    def __init__(self, source: TrialSource, context: StudyContext, resources: "Resources") -> None:
        self.attempts = Attempts(source, context, ClusterError)
        self.resources = resources
        self._out: dict[str, Attempt] = {}
        self._errors: dict[str, BaseException] = {}
        self._lost_devices = 0
        """Warm workers that will end as soon as Tune gives them another trial."""
        self._failure: BaseException | None = None

    def raise_failure(self) -> None:
        """Raise what ended the search, if something did."""
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Whatever the source says must reach the user, not Tune."""
        try:
            yield
        except Exception as error:
            self._failure = error

    # --- the searcher's side -----------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next job as a Tune configuration; None when there is none now, ``FINISHED`` when none comes any more."""
        if self._failure is not None:
            return str(Searcher.FINISHED)
        if len(self._out) >= self.resources.slots():
            return None
        attempt = None
        with self._keeping_failure():
            attempt = self.attempts.take()
        if attempt is None:
            ended = self._failure is not None or self.attempts.at_end
            # A running attempt may yet have to be made again.
            return str(Searcher.FINISHED) if ended and not self._out else None
        self._out[trial_id] = attempt
        return {
            "job": _to_dict(attempt.job),
            "attempt": attempt.number,
            "design": _design(attempt.job),
            "resources": self.resources.of(attempt),
        }

    def complete(self, trial_id: str, result: Mapping[str, Any] | None, failed: bool) -> None:
        """A Tune trial has ended: book its job, or hand it out again."""
        attempt = self._out.pop(trial_id, None)
        if attempt is None or self._failure is not None:
            return
        if failed or result is None:
            error = self._errors.pop(trial_id, None)
            if (
                self._lost_devices
                and attempt.result is None
                and isinstance(error, ray.exceptions.RayActorError)
            ):
                self._lost_devices -= 1
                self.attempts.give_back(attempt)
                return
            begun = not (isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed)
            with self._keeping_failure():
                self.attempts.lose(attempt, _why_lost(error), begun=begun)
            return
        found = result["trial_result"]
        # The last epoch comes with the end, and Tune asks no scheduler about a trial that has ended.
        if "so_far" in result and self.report(trial_id, result, attempt) is not Decision.CONTINUE:
            found = result["so_far"] or found
        if self._failure is not None:
            return
        assert isinstance(found, TrialResult)
        self._lost_devices += found.device_lost
        with self._keeping_failure():
            self.attempts.end(attempt, found, shares_device=self.resources.shares_device)

    # --- the scheduler's side ----------------------------------------------------------------------------------

    def report(self, trial_id: str, result: Mapping[str, Any], attempt: Attempt | None = None) -> Decision:
        """What the source says to an epoch of a Tune trial."""
        attempt = attempt or self._out.get(trial_id)
        if attempt is None or self._failure is not None:
            return Decision.STOP
        with self._keeping_failure():
            metrics = dict(result["metrics"])
            return self.attempts.report(attempt, result["epoch"], metrics, result["trial_result"])
        return Decision.STOP

    def errored(self, trial_id: str, error: BaseException | None) -> None:
        """Why a Tune trial has failed; the searcher is told afterwards that it did."""
        if error is not None:
            self._errors[trial_id] = error


class _Face:
    """What Tune holds of us. It pickles its own settings, faces included, for a restore that never comes."""

    def __init__(self, dispatch: Dispatch) -> None:
        super().__init__()
        self.dispatch = dispatch

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_Face, Searcher):
    """Tune's face of the source for jobs and results."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        """Nothing to set: objectives are the study's."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """See :meth:`Dispatch.suggest`."""
        return self.dispatch.suggest(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """See :meth:`Dispatch.complete`."""
        self.dispatch.complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: the study's storage has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is restored: a new session opens the study."""


class StudyScheduler(_Face, TrialScheduler):
    """Tune's face of the source for decisions."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Trials run in the order in which they were asked for; see :func:`_survive`."""
        _survive(tune_controller._actor_manager)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Remember why, for the searcher."""
        file = trial.pickled_error_file
        there = file and Path(file).is_file()
        self.dispatch.errored(
            trial.trial_id, ray.cloudpickle.loads(Path(file).read_bytes()) if there else None
        )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See :meth:`Dispatch.report`."""
        going_on = self.dispatch.report(trial.trial_id, result) is Decision.CONTINUE
        return str(TrialScheduler.CONTINUE if going_on else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The searcher is told too."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing to do."""

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Tune starts what is pending by itself, in order."""

    def debug_string(self) -> str:
        """For Tune's own display, which is off."""
        return "study"


class StudyTrainable(tune.Trainable):
    """A warm worker: torch, images, teacher and what it said stay in the process from trial to trial."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], parcel: Parcel, arrays: Arrays, depot: Any, work: Work
    ) -> None:
        """Open the study in this process, then take up the first job."""
        cache = node_cache()
        self._context = unpack(
            parcel, arrays, DepotArtifacts(cache / "artifacts", depot), DepotCheckpoints(depot), cache
        )
        self._context.resources.compute.apply_threads()
        gc.freeze()  # collections between trials need not walk over all that was imported
        self._work = work
        self._device_lost = False
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next job; in another process if this one has lost its device."""
        if self._device_lost:
            os._exit(1)
        self._job = _from_dict(new_config["job"])
        self._steps: Steps | None = self._work(self._job, self._context)
        self._begun = False
        return True

    def step(self) -> dict[str, Any]:
        """One epoch. The last one brings the result too, so that an end costs no further round trip."""
        assert self._steps is not None
        found: dict[str, Any] = {}
        try:
            progress = self._steps.send(Decision.CONTINUE) if self._begun else next(self._steps)
            self._begun = True
            so_far = progress.result
            found = {**_scalars(so_far.metrics if so_far else {}), **_scalars(progress.metrics)}
            # Tuples, since Tune takes dictionaries apart.
            found.update(epoch=progress.epoch, rung=0, metrics=tuple(progress.metrics.items()))
            found["trial_result"] = so_far
            if progress.last:
                found["so_far"] = so_far
                self._steps.send(Decision.CONTINUE)
        except StopIteration as end:
            self._steps = None
            self._device_lost = end.value.device_lost
            found.update(done=True, trial_result=end.value)
        return found

    def cleanup(self) -> None:
        """End a training that is not finished, so that what it holds is free."""
        if self._steps is not None:
            self._steps.close()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What an attempt asks for."""
        return tune.PlacementGroupFactory([config["resources"]])


class _LostWorkerError(ray.exceptions.RayActorError):
    """A worker is gone for a reason that is no actor's error to Ray."""


def _survive(actors: Any) -> None:
    """Let one lost worker be one failed attempt.

    Tune (2.60) knows two kinds of errors, of actors and of tasks, and ends the whole search at any other: above all at
    the one of Ray's memory monitor, which kills a worker to save its node. Tune has no setting for it, so this one
    object of its own is made to see an actor's error.
    """
    known = ray.exceptions.RayActorError, ray.exceptions.RayTaskError
    fail = actors._actor_task_failed
    if getattr(fail, "survives", False):
        return

    def failed(tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.RayError) and not isinstance(exception, known):
            exception = _LostWorkerError(error_msg=_why_lost(exception))
        fail(tracked_actor_task=tracked_actor_task, exception=exception)

    failed.survives = True  # type: ignore[attr-defined]
    actors._actor_task_failed = failed


def _why_lost(error: BaseException | None) -> str:
    """One line. A worker that was killed has an error of Ray's, one that could not begin has its own."""
    if isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        error = error.cause
    if error is None:
        return "no reason given"
    said = str(error).strip().splitlines() or ["no message"]
    if isinstance(error, _LostWorkerError):
        return said[0]
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "Ray's memory monitor killed it, since its node was short of memory"
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "it could not be reached any more"
    if isinstance(error, ray.exceptions.RayActorError):
        if error.actor_init_failed:
            return said[-1]
        return "its node was lost" if "its node has died" in str(error) else "its process ended"
    return f"{type(error).__name__}: {said[0]}"


class Resources:
    """What a trial asks of a cluster, and how many of them it holds.

    Args:
        spec: Of the study.
        own: Whether the cluster is ours, so that nobody will add a node to it.

    Raises:
        InputError: No node of our own cluster can hold a trial.
    """

    def __init__(self, spec: ExecutionSpec, own: bool) -> None:
        self.own = own
        self.workers = spec.workers
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0  # type: ignore[no-untyped-call]
        default = 1.0 if has_gpus and spec.device != "cpu" else 0.0
        self.cpus = float(spec.cpus_per_trial or spec.threads)
        self.gpus = default if spec.gpus_per_trial is None else float(spec.gpus_per_trial)
        self._slots, self._counted = 0, -math.inf
        if not self._held():
            wants = f"a trial wants {self.cpus:g} CPUs and {self.gpus:g} GPUs (execution.cpus_per_trial)"
            there = max(_alive(), key=lambda node: node.get("CPU", 0.0), default={})
            has = f"the largest node has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
            if own:
                raise InputError(f"{wants}; {has}")
            _LOG.warning("%s; %s: the search waits for a node that has them", wants, has)

    @property
    def shares_device(self) -> bool:
        """Whether trials share a GPU, so that one may find it too full."""
        return 0 < self.gpus < 1

    def of(self, attempt: Attempt) -> dict[str, float]:
        """A bundle of Ray's resources."""
        gpus = max(1.0, self.gpus) if attempt.alone else self.gpus
        return {"CPU": self.cpus, **({"GPU": gpus} if gpus else {})}

    def slots(self) -> int:
        """Trials at once: what the cluster holds now, as it grows and shrinks, and what the study allows."""
        if time.monotonic() - self._counted > SLOTS_SECONDS:
            self._slots, self._counted = self._held(), time.monotonic()
        if self.workers is None:
            return max(1, self._slots)
        # One more than a foreign cluster holds shows its autoscaler that there is work.
        return max(1, min(self.workers, self._slots if self.own else self._slots + 1))

    def _held(self) -> int:
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            min(math.floor(node.get(name, 0.0) / need + 1e-9) for name, need in wanted.items() if need)
            for node in _alive()
        )


def _alive() -> list[dict[str, float]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


class RayTuneExecutor:
    """Runs trials and artifacts on a Ray cluster, as many at once as it holds.

    Ctrl-C once finishes and books the running trials, then returns; twice raises ``KeyboardInterrupt`` at once, and
    the running trials are taken up from their checkpoints by the next session. A cluster that was there before is
    left running.

    Args:
        context: The study's data and networks, in this process.
        folder: The run directory.
        work: How a worker does a job.
    """

    def __init__(self, context: StudyContext, folder: Path, work: Work = job_steps) -> None:
        self.context = context
        self.folder = folder
        self.work = work

    def run(self, source: TrialSource) -> None:
        """See :class:`~naskd.executors.Executor`.

        Raises:
            InputError: There is no such cluster, or it cannot hold a trial.
            ClusterError: It cannot be reached, or no worker can begin on one of its nodes.
        """
        execution = self.context.resources.spec.execution
        callbacks = build_callbacks(
            execution.callbacks, folder=self.folder, study=self.context.resources.spec.name
        )
        with ExitStack() as cleanup:
            # Ray prints what it hears of lost workers to standard output, which is for results; until it is shut down.
            cleanup.enter_context(redirect_stdout(sys.stderr))
            own = cleanup.enter_context(_connected(execution.address))
            resources = Resources(execution, own)
            parcel, arrays = pack(self.context)
            checkpoints = self.context.resources.checkpoints
            assert isinstance(checkpoints, CheckpointStore)
            depot = start_depot(self.context.resources.store.root, checkpoints.root)
            cleanup.callback(ray.kill, depot)
            dispatch = Dispatch(source, self.context, resources)
            # Tune's own files are about its trials, which are attempts: nothing in them is kept.
            scratch = tempfile.mkdtemp(prefix="naskd-tune-")
            cleanup.callback(shutil.rmtree, scratch, ignore_errors=True)
            cleanup.enter_context(interrupts(dispatch.attempts))
            cleanup.enter_context(_environment(_TUNE_SETTINGS))
            cleanup.enter_context(_silent("ray.tune"))
            tune.Tuner(
                tune.with_parameters(
                    StudyTrainable, parcel=parcel, arrays=arrays, depot=depot, work=self.work
                ),
                tune_config=tune.TuneConfig(
                    search_alg=StudySearcher(dispatch),
                    scheduler=StudyScheduler(dispatch),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=scratch,
                    callbacks=callbacks,
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    verbose=0,
                ),
            ).fit()
            dispatch.raise_failure()


def _trial_name(trial: Any) -> str:
    return f"{trial.config['job']['job_id']}-{trial.config['attempt']}"


@contextmanager
def _connected(address: str | None) -> Iterator[bool]:
    """Be connected inside; whether the cluster is ours. A connection that was there before is left as it was."""
    before = ray.is_initialized()
    own = connect(address)
    try:
        yield own
    finally:
        if not before:
            ray.shutdown()


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Tune takes these settings from the environment alone."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Tune tells of attempts that failed and of files that it misses; what matters of it is told by the study."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _design(job: Job) -> dict[str, Any]:
    """For loggers. The configuration of an artifact's job is a design that wants it, not its own."""
    if job.kind == "artifact" or job.config is None:
        return {}
    facts = {"number": int(job.job_id), "seed": job.seed, "config_id": job.config.config_id}
    return {**facts, **flat_design(job.config)}


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def _to_dict(job: Job) -> dict[str, Any]:
    return {**dataclasses.asdict(job), "config": job.config.to_dict() if job.config is not None else None}


def _from_dict(data: Mapping[str, Any]) -> Job:
    config = TrialConfig.from_dict(data["config"]) if data["config"] is not None else None
    return Job(**{**data, "config": config, "requires": tuple(data["requires"])})
