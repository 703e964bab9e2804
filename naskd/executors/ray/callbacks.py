"""The loggers of a search on Ray Tune, by name: TensorBoard, MLflow, Weights & Biases.

They talk to the three packages themselves. Ray's callbacks of the same names work in the loop that hands out
trials, and block it: MLflow's for 172 ms at each result of ten values (a look-up and a transaction for each) and
for 623 ms at the start of a trial with 40 parameters, W&B's for 5.3 s a trial (two processes are started for it),
and a server that does not answer stops the search. Here each logger has a thread of its own. (Ray 2.60, MLflow
3.17, wandb 0.31, medians of 5 trials on 2 shared cores.)

A logger has one run for each job, whatever became of its workers: a job that is taken up again goes on in the same run.
"""

import importlib.util
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, get_args

from ray.tune import Callback
from ray.tune.result import AUTO_RESULT_KEYS

from naskd.spec.design import TrialConfig
from naskd.spec.errors import InputError
from naskd.spec.registry import nearest
from naskd.spec.study import CallbackName
from naskd.trials.jobs import TrialResult

_LOG = logging.getLogger(__name__)

Scalar = str | int | float | bool

BACKLOG = 10_000
"""Results that may wait for a logger; more are left out of it."""

PATIENCE = 30.0
"""Seconds that the end of a search waits for a logger that does nothing."""

REST = 60.0
"""Seconds without a write after one that failed: MLflow prints a traceback of 150 lines for each."""

_NOT_METRICS = {*AUTO_RESULT_KEYS, "epoch", "done", "should_checkpoint", "trial_id", "experiment_tag"}
_PACKAGES: Mapping[str, tuple[str, str]] = {
    "tensorboard": ("tensorboardX", "ray[tune]"),
    "mlflow": ("mlflow", "naskd[mlflow]"),
    "wandb": ("wandb", "naskd[wandb]"),
}


def flat_design(config: TrialConfig) -> dict[str, Scalar]:
    """A design as names and values, such as ``architecture.stages.0.block``; empty lists leave no name."""
    return _flat(config.to_dict(), "")


def _flat(value: Any, name: str) -> dict[str, Scalar]:
    if name.endswith(".options"):
        value = dict(value)
    if isinstance(value, Mapping):
        children = [(str(key), child) for key, child in value.items()]
    elif isinstance(value, list | tuple):
        children = [(str(index), child) for index, child in enumerate(value)]
    else:
        return {name: value}
    return {
        path: scalar
        for key, child in children
        for path, scalar in _flat(child, f"{name}.{key}" if name else key).items()
    }


def build_callbacks(names: Sequence[str], *, folder: Path, study: str) -> list[Callback]:
    """The loggers of a search, to be given to Tune. Their packages are imported when the search begins.

    Args:
        names: Distinct ones of ``tensorboard``, ``mlflow`` and ``wandb``.
        folder: Of the run. TensorBoard writes to ``tensorboard/``, W&B to ``wandb/``, and MLflow to ``mlflow.db``
            unless ``MLFLOW_TRACKING_URI`` names another place.
        study: Names MLflow's experiment and W&B's project, unless ``MLFLOW_EXPERIMENT_NAME`` and
            ``WANDB_PROJECT`` do.

    Raises:
        InputError: A name is unknown or stands twice, or a package is not installed.
    """
    known = get_args(CallbackName)
    for name in names:
        if name not in known:
            raise InputError(
                f"execution.callbacks: unknown {name!r}; allowed: {', '.join(known)}{nearest(name, known)}"
            )
    if len(set(names)) != len(names):
        raise InputError(f"execution.callbacks: got {', '.join(names)}; allowed: each name once")
    missing = [name for name in names if not _installed(_PACKAGES[name][0])]
    if missing:
        packages = " and ".join(_PACKAGES[name][0] for name in missing)
        command = " ".join(f"'{_PACKAGES[name][1]}'" for name in missing)
        raise InputError(
            f"execution.callbacks names {' and '.join(missing)}, and {packages} cannot be imported; "
            f"pip install {command}, or leave it out"
        )
    folder = Path(os.path.abspath(folder))
    openers: Mapping[str, Callable[[], OpenLog]] = {
        "tensorboard": partial(partial, _TensorBoardLog, folder),
        "mlflow": partial(_MLflow, folder, study),
        "wandb": partial(partial, _WandbLog, folder, study),
    }
    return [JobLogger(name, openers[name]) for name in names]


def _installed(module: str) -> bool:
    # A folder of that name where Python was started (W&B writes one) is found as a module without an origin.
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


@dataclass(frozen=True)
class LoggedRun:
    """What a logger calls a run.

    Args:
        name: ``trial-<number>``, or what is made and its content id.
        kind: ``trial`` or ``artifact``.
        design: Names and values.
    """

    name: str
    kind: str
    design: Mapping[str, Scalar]


class RunLog(Protocol):
    """A run in one logger. Every method may raise."""

    def log(self, epoch: int, values: Mapping[str, int | float]) -> None:
        """Values of one epoch; epochs only grow."""

    def close(self, status: str, reason: str, final: Mapping[str, int | float]) -> None:
        """The end of the run.

        Args:
            status: ``complete``, ``stopped``, ``failed``, or ``interrupted`` with the whole search.
            reason: Why; one line or "".
            final: The last value of everything, what was logged before included.
        """


OpenLog = Callable[[LoggedRun], RunLog]


@dataclass
class _Job:
    """What is known of a job while it runs."""

    run: LoggedRun
    log: RunLog | None = None
    attempt: int = 1
    epoch: int = 0
    status: str = "interrupted"
    reason: str = ""
    again: bool = False
    """Whether it is run once more, alone on a device."""
    final: dict[str, int | float] = field(default_factory=dict)

    def take(self, result: Mapping[str, Any], gpus: float) -> dict[str, int | float]:
        """Remember a result of Tune's, of a trial that has so many GPUs; the values that are new in it come back."""
        values: dict[str, int | float] = {}
        epoch = result.get("epoch")
        # A later attempt repeats epochs since its checkpoint, with the same bits.
        if isinstance(epoch, int) and epoch > self.epoch:
            values = {**_metrics(result), "attempt": self.attempt}
            self.epoch = epoch
            self.final.update(values)
        if result.get("done") and result.get("trial_result") is not None:
            outcome: TrialResult = result["trial_result"]
            self.status, self.reason = outcome.status, outcome.reason
            self.again = outcome.blames_device and 0 < gpus < 1
            self.final.update(_metrics(outcome.metrics))
        return values


class JobLogger(Callback):
    """Tells one logger of the jobs that Tune runs; never raises, never makes Tune wait before the end.

    A trial of Tune is an attempt at a job: its configuration has ``job`` (with ``job_id`` and ``kind``),
    ``attempt`` (from 1) and ``design``; its results have ``epoch`` and scalars, that which is ``done`` also a
    ``trial_result``.

    Args:
        name: Of the logger.
        connect: Imports the package and returns what opens a run; tried again until it succeeds.
    """

    def __init__(self, name: str, connect: Callable[[], OpenLog]) -> None:
        self.name = name
        self._connect = connect
        self._open: OpenLog | None = None
        self._jobs: dict[str, _Job] = {}
        self._handled = 0
        self._warned = False
        self._rest_until = 0.0

    def setup(self, *_: Any, **__: Any) -> None:
        """Start the thread; not before, because Tune pickles its callbacks."""
        self._events: SimpleQueue[tuple[str, Mapping[str, Any], Mapping[str, Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"naskd-{self.name}", daemon=True)
        self._thread.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A worker takes a job up."""
        self._events.put(("start", trial.config, {}))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """An epoch, or the end."""
        if self._events.qsize() >= BACKLOG and not result.get("done"):
            self._warn(f"has {BACKLOG} results waiting; further ones are left out")
        else:
            self._events.put(("result", trial.config, dict(result)))  # Tune changes the result later

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The job was done, well or not."""
        self._events.put(("end", trial.config, {}))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The worker died; whether another one goes on with the job is not known yet."""
        self._events.put(("death", trial.config, {}))

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        """Wait for what is still to be written, as long as something is written."""
        self._events.put(None)
        while True:
            handled = self._handled
            self._thread.join(PATIENCE)
            if not self._thread.is_alive():
                return
            if handled == self._handled:
                _LOG.warning(
                    "%s did nothing for %g s; the search ends without its last values", self.name, PATIENCE
                )
                return
            _LOG.info("%s has %d events to write; Ctrl-C ends without them", self.name, self._events.qsize())

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            self._attempt(partial(self._handle, *event))
        self._rest_until = 0.0
        for identity in list(self._jobs):
            self._attempt(partial(self._close, identity))

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # whatever a package raises, the search is worth more than its log
            text = str(error).strip().splitlines()
            self._warn(f"failed ({type(error).__name__}: {text[0] if text else 'no message'})")
            self._rest_until = time.monotonic() + REST
        self._handled += 1

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning("%s %s; the search goes on, and values may be missing there", self.name, what)

    def _handle(self, event: str, config: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        identity = str(config["job"]["job_id"])
        job = self._jobs.setdefault(identity, _Job(_logged_run(config)))
        values = job.take(result, config.get("resources", {}).get("GPU", 0))
        if event == "start":
            job.attempt = config.get("attempt", 1)
            job.status, job.reason, job.again = "interrupted", "", False
        elif event == "death":
            job.status, job.reason = "failed", "its worker died"
        elif event == "end" and job.status == "interrupted":
            job.status = "stopped"
        if time.monotonic() < self._rest_until:
            return
        if event == "end" and not job.again:
            self._close(identity)
        elif event == "start":
            self._log_of(job)
        elif values:
            self._log_of(job).log(job.epoch, values)

    def _close(self, identity: str) -> None:
        # What could not be closed stays in the books, and is closed at the end of the search.
        job = self._jobs[identity]
        if time.monotonic() >= self._rest_until:
            self._log_of(job).close(job.status, job.reason, job.final)
            del self._jobs[identity]

    def _log_of(self, job: _Job) -> RunLog:
        if self._open is None:
            self._open = self._connect()
        if job.log is None:
            job.log = self._open(job.run)
        return job.log


def _logged_run(config: Mapping[str, Any]) -> LoggedRun:
    job, design = config["job"], config.get("design", {})
    kind, identity = str(job.get("kind", "trial")), str(job["job_id"])
    label = "trial" if kind == "trial" else str(job.get("label") or kind)
    name = re.sub(r"[^\w.-]+", "-", f"{label}-{identity}")  # it is a folder's name too
    return LoggedRun(name, kind, {k: v for k, v in design.items() if isinstance(v, Scalar)})


def _metrics(values: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers among `values`, under names that all loggers take, without what Tune adds."""
    return {
        re.sub(r"[^\w./-]", "_", name): value if isinstance(value, int) else float(value)
        for name, value in values.items()
        if isinstance(value, Real) and not isinstance(value, bool) and name not in _NOT_METRICS
    }


def _unlike(old: Mapping[str, int | float], new: Mapping[str, int | float]) -> dict[str, int | float]:
    return {name: value for name, value in new.items() if old.get(name) != value}


class _TensorBoardLog:
    """An event file. Numbers are stored in 32 bits."""

    def __init__(self, folder: Path, run: LoggedRun) -> None:
        # SummaryWriter would start a thread and a queue for each run; when the disk is full, its thread dies and
        # the next write waits for ever. The writer under it raises.
        from tensorboardX.event_file_writer import EventsWriter

        self.run, self.epoch = run, 0
        self.logged: Mapping[str, int | float] = {}
        home = folder / "tensorboard" / run.name
        home.mkdir(parents=True, exist_ok=True)
        self.events = EventsWriter(str(home / "events"))

    def log(self, epoch: int, values: Mapping[str, int | float]) -> None:
        from tensorboardX.summary import scalar

        self.epoch, self.logged = epoch, values
        self._write(scalar(name, value) for name, value in values.items())

    def close(self, status: str, reason: str, final: Mapping[str, int | float]) -> None:
        from tensorboardX.summary import hparams

        self.log(self.epoch, _unlike(self.logged, final))
        self._write(hparams({**self.run.design, "kind": self.run.kind, "status": status}, final))
        self.events.close()

    def _write(self, summaries: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [value for summary in summaries for value in summary.value]
        event = Event(wall_time=time.time(), step=self.epoch, summary=Summary(value=values))
        self.events.write_event(event)
        self.events.flush()


class _MLflow:
    """An experiment.

    Its client is our own: ``mlflow.set_tracking_uri`` also sets ``MLFLOW_TRACKING_URI``, and the next search of
    this process would write to the file of this one.
    """

    def __init__(self, folder: Path, study: str) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or study
        self.client = MlflowClient(uri or f"sqlite:///{folder / 'mlflow.db'}")
        found = self.client.get_experiment_by_name(name)
        self.experiment: str = (
            found.experiment_id
            if found is not None
            else self.client.create_experiment(
                name, artifact_location=None if uri else (folder / "mlflow-artifacts").as_uri()
            )
        )

    def __call__(self, run: LoggedRun) -> "_MLflowLog":
        return _MLflowLog(self.client, self.experiment, run)


class _MLflowLog:
    """A run; an epoch is one transaction."""

    def __init__(self, client: Any, experiment: str, run: LoggedRun) -> None:
        from mlflow.entities import Param

        self.client, self.epoch = client, 0
        self.logged: Mapping[str, int | float] = {}
        created = client.create_run(experiment, run_name=run.name, tags={"kind": run.kind})
        self.run_id: str = created.info.run_id
        parameters = [Param(name, str(value)) for name, value in run.design.items()]
        for start in range(0, len(parameters), 100):  # as many as a batch may hold
            client.log_batch(self.run_id, params=parameters[start : start + 100])

    def log(self, epoch: int, values: Mapping[str, int | float]) -> None:
        self.epoch, self.logged = epoch, values
        self._log(values, {})

    def close(self, status: str, reason: str, final: Mapping[str, int | float]) -> None:
        self._log(_unlike(self.logged, final), {"status": status, "reason": reason})
        words = {"failed": "FAILED", "interrupted": "KILLED"}
        self.client.set_terminated(self.run_id, words.get(status, "FINISHED"))

    def _log(self, values: Mapping[str, int | float], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id,
            metrics=[Metric(name, float(value), now, self.epoch) for name, value in values.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )


class _WandbLog:
    """A run; all runs of a search share the one process that wandb starts."""

    def __init__(self, folder: Path, study: str, run: LoggedRun) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or (
            "online" if os.environ.get("WANDB_API_KEY") else "offline"
        )
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or study,
            name=run.name,
            job_type=run.kind,
            config=dict(run.design),
            dir=str(folder),
            mode=mode,
            reinit="create_new",
            # What wandb would capture besides (output, machine load, code) is the driver's, not the trial's.
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True
            ),
        )

    def log(self, epoch: int, values: Mapping[str, int | float]) -> None:
        self.run.log(dict(values), step=epoch, commit=True)

    def close(self, status: str, reason: str, final: Mapping[str, int | float]) -> None:
        self.run.summary.update({**final, "status": status, "reason": reason})
        self.run.finish(exit_code=0 if status in ("complete", "stopped") else 1)
