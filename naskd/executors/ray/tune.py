"""Trials on a Ray cluster: Ray Tune runs them, the study decides.

Tune's searcher and its scheduler are two thin faces of one :class:`~naskd.trials.jobs.TrialSource`: proposals,
turned-away designs, stopping, budgets and the ledger are those of the serial executor. Differs from Tune's own Optuna
searcher, which tells stopped trials as complete, loses trials with NaN and leaves zombies: here nothing but the source
writes the ledger.

A Tune trial is one attempt at a job (:mod:`~naskd.executors.attempts`). What is tried again is a new Tune trial, before
any other: Tune's own retries come after everything that is pending.
"""

import gc
import logging
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from naskd.executors.attempts import WorkerError, interrupts
from naskd.executors.faults import FaultFile
from naskd.executors.limits import TimeLimits
from naskd.executors.packing import Arrays, PackedStudy, pack, unpack
from naskd.executors.ray.connect import connect
from naskd.executors.ray.dispatch import Dispatch, Resources, job_from_dict
from naskd.executors.ray.ray_private import survive
from naskd.executors.ray.remote_store import (
    RemoteArtifacts,
    RemoteCheckpoints,
    RemoteStudents,
    start_remote_store,
)
from naskd.spec import timeouts
from naskd.spec.errors import one_line
from naskd.spec.timeouts import OutOfTimeError, ended_when, within
from naskd.store.cache import node_cache
from naskd.store.checkpoints import CheckpointStore
from naskd.store.files import process_folder
from naskd.store.students import StudentStore
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, TrialResult, TrialSource
from naskd.trials.outcome import Steps, Work, checkpoint_key, failed
from naskd.trials.steps import job_steps

_LOG = logging.getLogger(__name__)

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
        """Trials run in the order in which they were asked for; see :mod:`naskd.executors.ray.ray_private`."""
        survive(tune_controller)

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

    # Tune passes what `with_parameters` was given by name, beside its own `config`.
    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        packed: PackedStudy,
        arrays: Arrays,
        remote_store: Any,
        work: Work,
        session: str,
    ) -> None:
        """Open the study in this process, then take up the first job.

        Raises:
            WorkerError: It cannot be opened, or not in time.
        """
        cache = node_cache()
        seconds = packed.spec["execution"]["start_seconds"]
        try:
            with within(seconds, f"it took longer than execution.start_seconds = {seconds:g}"):
                self._context = unpack(
                    packed,
                    arrays,
                    RemoteArtifacts(cache / "artifacts", remote_store),
                    RemoteCheckpoints(remote_store),
                    cache,
                    RemoteStudents(remote_store),
                )
        except (OutOfTimeError, SystemExit) as error:
            said = isinstance(error, OutOfTimeError)
            raise WorkerError(str(error) if said else one_line(error)) from None
        self._limits = TimeLimits(self._context.resources.spec)
        self._faults = cache / "faults" / session
        self._noting = ExitStack()
        self._context.resources.compute.apply_threads()
        gc.freeze()  # collections between trials need not walk over all that was imported
        self._work = work
        self._device_lost = False
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next job; in another process if this one has lost its device."""
        if self._device_lost:
            os._exit(1)
        self._noting.close()
        self._job = job_from_dict(new_config["job"])
        self._file = FaultFile(self._faults, checkpoint_key(self._job))
        # What another worker of this machine has died of would end this one too.
        self._fault = self._file.take()
        self._noting.enter_context(self._file.written())
        self._steps: Steps | None = self._work(self._job, self._context)
        self._limits.budget_left = new_config["budget_left"]
        self._watch = self._limits.begin(self._job)
        self._so_far: TrialResult | None = None
        self._begun = False
        return True

    def step(self) -> dict[str, Any]:
        """One epoch. The last one brings the result too, so that an end costs no further round trip."""
        found: dict[str, Any] = {}
        try:
            if self._fault is not None:
                return self._ended(found, failed(self._job, None, *self._fault))
            left, why = self._limits.left(self._watch)
            with (
                self._file.ended_after(max(0.0, left) + 2 * timeouts.STUCK_SECONDS, why),
                ended_when(
                    lambda: self._limits.overdue(self._watch),
                    stuck=lambda reason: self._file.leave(f"{self._job.kind} {self._job.job_id}", reason),
                ),
            ):
                self._train(found)
        except StopIteration as end:
            self._ended(found, end.value)
        except OutOfTimeError as over:
            reason = str(over) or self._limits.overdue(self._watch)
            self._ended(found, failed(self._job, self._so_far, reason))
        except KeyboardInterrupt as error:  # no Ctrl-C comes here: a user's code has raised it
            self._ended(found, failed(self._job, self._so_far, one_line(error)))
        return found

    def _train(self, found: dict[str, Any]) -> None:
        """Fill in an epoch.

        Raises:
            StopIteration: The job has ended, with its result.
        """
        assert self._steps is not None
        progress = self._steps.send(Decision.CONTINUE) if self._begun else next(self._steps)
        self._begun = True
        self._limits.epoch(self._watch)
        so_far = self._so_far = progress.result
        found.update({**_scalars(so_far.metrics if so_far else {}), **_scalars(progress.metrics)})
        # Tuples, since Tune takes dictionaries apart.
        found.update(epoch=progress.epoch, metrics=tuple(progress.metrics.items()))
        found["trial_result"] = so_far
        if progress.last:
            found["so_far"] = so_far
            self._steps.send(Decision.CONTINUE)

    def _ended(self, found: dict[str, Any], result: TrialResult) -> dict[str, Any]:
        """The job is over, with this result."""
        self.cleanup()
        self._device_lost = result.device_lost
        found.update(done=True, trial_result=result)
        return found

    def cleanup(self) -> None:
        """End a training that is not finished, so that what it holds is free."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None
        self._noting.close()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What an attempt asks for."""
        return tune.PlacementGroupFactory([config["resources"]])


class RayTuneExecutor:
    """Runs trials and artifacts on a Ray cluster, as many at once as it holds.

    Ctrl-C once finishes and records the running trials, then returns; twice raises ``KeyboardInterrupt`` at once, and
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
        with ExitStack() as cleanup:
            # Ray prints what it hears of lost workers to standard output, which is for results; until it is shut down.
            cleanup.enter_context(redirect_stdout(sys.stderr))
            own = cleanup.enter_context(_connected(execution.settings("ray")["address"]))
            resources = Resources(execution, own)
            packed, arrays = pack(self.context)
            checkpoints = self.context.resources.checkpoints
            assert isinstance(checkpoints, CheckpointStore)
            students = self.context.resources.students
            kept = students.root if isinstance(students, StudentStore) else None
            remote_store = start_remote_store(self.context.resources.store.root, checkpoints.root, kept)
            cleanup.callback(ray.kill, remote_store)
            dispatch = Dispatch(source, self.context, resources)
            # Tune's own files are about its trials, which are attempts: nothing in them is kept.
            scratch = tempfile.mkdtemp(prefix="tune-", dir=process_folder())
            cleanup.callback(shutil.rmtree, scratch, ignore_errors=True)
            cleanup.enter_context(interrupts(dispatch.attempts))
            cleanup.enter_context(_environment(_TUNE_SETTINGS))
            cleanup.enter_context(_silent("ray.tune"))
            tune.Tuner(
                tune.with_parameters(
                    StudyTrainable,
                    packed=packed,
                    arrays=arrays,
                    remote_store=remote_store,
                    work=self.work,
                    session=uuid.uuid4().hex,
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


def _scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}
