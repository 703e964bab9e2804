"""Four faults, ours against Ray Tune with OptunaSearch: what the ledger says after stops, kills, NaN and closures.

    python benchmarks/faults.py --trials 24 --repetitions 3
    python benchmarks/faults.py --faults killed --snapshot-seconds 10    # Tune's own default

Both sides get the same two objectives, the same random sampler and seed (so the same designs), an Optuna journal file
each, warm workers on one Ray cluster of two CPUs, and trainings that only pretend: an accuracy in closed form after
each of nine epochs. The trainings log each epoch themselves; what was trained is read from there, not from the ledger.

- stopped: asynchronous halving on the accuracy: Tune's own ASHA there, the same rule in front of the study here.
- killed: the driver gets SIGKILL when a part of the trials is COMPLETE, another part in each repetition, and is started
  again until all trials are done: ``Tuner.restore`` there. Checkpoints after each epoch on both sides. A training
  takes a second, so Tune is told to keep its own state every second; its default is every ten.
- NaN: designs with a high learning rate give NaN as their accuracy.
- closure: the search space is a lambda that closes over a function.

Counts, not seconds: a busy machine makes it slower (28 minutes on two cores with some 17 processes waiting). Only
the killed trials depend on timing at all: on what runs, and how old a snapshot is, at the moment of the kill.

One long file, so that the two sides of a fault stand beside each other.
"""

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from harness.setting import Setting, open_study
from harness.spread import header
from naskd.executors.ray.connect import connect
from naskd.executors.ray.tune import RayTuneExecutor
from naskd.spec.datasets import DataSpec
from naskd.spec.design import ArchitectureSpec, StageSpec, TrainingSpec, TrialConfig
from naskd.spec.study import BudgetSpec, ExecutionSpec, SamplerSpec, StudySpec
from naskd.store.cache import CACHE_VARIABLE
from naskd.study.samplers import build_sampler
from naskd.study.storage import open_storage, quiet
from naskd.study.study import Study
from naskd.trials.context import StudyContext
from naskd.trials.jobs import Decision, Job, TrialResult
from naskd.trials.outcome import Progress, Steps, checkpoint_key

SIDES = {"stock": "Ray Tune with OptunaSearch", "ours": "naskd"}
FAULTS = {
    "stopped": "stopped early",
    "killed": "driver killed and resumed",
    "nan": "NaN as a metric",
    "closure": "closure as the space",
}
NAME = "faults"
CPUS = 2
EPOCHS = 9
GRACE, REDUCTION = 1, 3
EPOCH_SECONDS = 0.1
"""Of the trainings whose driver is killed; the others take no time."""
NAN_RATE = 0.02
"""Learning rates above it diverge: about a quarter of the designs."""
LIFE_SECONDS = 600.0
"""A driver that takes longer hangs."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a driver is to do.

    Args:
        side: Of :data:`SIDES`.
        fault: Of :data:`FAULTS`.
        folder: Of its ledger and its log.
        trials: To be reached, those of an earlier life included.
        seed: Of the sampler.
        address: Of the cluster.
    """

    side: str
    fault: str
    folder: str
    trials: int
    seed: int
    address: str

    def space(self, space: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same space as the fault has it."""
        return (lambda trial: space(trial)) if self.fault == "closure" else space

    def sampler(self) -> optuna.samplers.BaseSampler:
        """As the study builds its own."""
        return build_sampler(SamplerSpec("random"), self.seed, 0)


def suggest(trial: Any) -> dict[str, Any]:
    """The search space of both sides."""
    return {
        "width": trial.suggest_int("width", 1, 64),
        "rate": trial.suggest_float("rate", 1e-3, 5e-2, log=True),
    }


def train_epoch(task: Task, width: int, rate: float, epoch: int) -> dict[str, float]:
    """Pretend to train one epoch, and log it: one file a design, one line an epoch."""
    time.sleep(EPOCH_SECONDS if task.fault == "killed" else 0.0)
    with open(Path(task.folder) / "log" / design_key(width, rate), "a") as file:
        file.write(f"{epoch}\n")
    accuracy = 1 - 0.5 / (1 + math.log(width)) - 0.03 * abs(math.log(rate / 5e-3))
    diverged = task.fault == "nan" and rate > NAN_RATE and epoch == EPOCHS
    return {
        "val_accuracy": math.nan if diverged else accuracy * (1 - math.exp(-epoch / 3)),
        "macs": 1000.0 * width**2,
    }


def design_key(width: int | None = None, rate: float | None = None) -> str:
    """Of a design; a trial whose driver was killed while it was suggested lacks parameters."""
    return f"{width}-{rate!r}"


# --- the stock pair --------------------------------------------------------------------------------------------


class StockTraining(tune.Trainable):
    """The training as Tune wants it: with checkpoints, and reset for the next trial."""

    def setup(self, config: dict[str, Any], task: Task) -> None:
        self.task = task
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.design, self.epoch = (new_config["width"], new_config["rate"]), 0
        return True

    def step(self) -> dict[str, Any]:
        self.epoch += 1
        return {**train_epoch(self.task, *self.design, self.epoch), "done": self.epoch == EPOCHS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "epoch").write_text(str(self.epoch))

    def load_checkpoint(self, checkpoint: str) -> None:
        self.epoch = int((Path(checkpoint) / "epoch").read_text())


def run_stock(task: Task) -> None:
    folder = Path(task.folder)
    trainable = tune.with_parameters(StockTraining, task=task)
    storage = open_storage("journal", folder, writing=True)
    if tune.Tuner.can_restore(str(folder / "tune")):
        tune.Tuner.restore(str(folder / "tune"), trainable).fit()
        return
    halving = ASHAScheduler(
        metric="val_accuracy", mode="max", grace_period=GRACE, reduction_factor=REDUCTION, max_t=EPOCHS
    )
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                task.space(suggest),
                metric=["val_accuracy", "macs"],
                mode=["max", "min"],
                sampler=task.sampler(),
                study_name=NAME,
                storage=storage,
            ),
            scheduler=halving if task.fault == "stopped" else None,
            num_samples=task.trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=int(task.fault == "killed")),
        ),
    ).fit()


# --- ours ------------------------------------------------------------------------------------------------------


def design(trial: Any) -> TrialConfig:
    values = suggest(trial)
    architecture = ArchitectureSpec((StageSpec("basic", 1, values["width"]),))
    return TrialConfig(architecture, training=TrainingSpec(learning_rate=values["rate"]))


@dataclasses.dataclass(frozen=True)
class OurTraining:
    """The training as naskd's workers do jobs: with checkpoints where the study has them."""

    task: Task

    def __call__(self, job: Job, context: StudyContext) -> Steps:
        assert job.config is not None
        assert context.resources.checkpoints is not None
        values = job.config.architecture.stages[0].width, job.config.training.learning_rate
        every, name = context.resources.spec.execution.checkpoint_every, checkpoint_key(job)
        done = int(context.resources.checkpoints.load(name) or 0) if every else 0
        metrics: dict[str, float] = {}
        for epoch in range(done + 1, EPOCHS + 1):
            metrics = train_epoch(self.task, *values, epoch)
            so_far = TrialResult("stopped", job.seed, reason=f"halving, epoch {epoch}", metrics=metrics)
            if (yield Progress(epoch, metrics, epoch == EPOCHS, so_far)) is not Decision.CONTINUE:
                return so_far
            if every and epoch < EPOCHS:
                context.resources.checkpoints.save(name, epoch, str(epoch).encode())
        return TrialResult("complete", job.seed, metrics=metrics)


class Halving:
    """The study with a stopping rule in front of it: asynchronous halving, as Tune's ASHA does it.

    Li et al.: A system for massively parallel hyperparameter tuning. MLSys 2020, arXiv 1810.05934.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.ask, self.tell = study.ask, study.tell
        rungs = [GRACE * REDUCTION**n for n in range(EPOCHS)]
        self.seen: dict[int, list[float]] = {epoch: [] for epoch in rungs if epoch < EPOCHS}

    @property
    def finished(self) -> bool:
        return self.study.finished

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        decision = self.study.report(job, epoch, metrics)
        if epoch not in self.seen:
            return decision
        others, accuracy = self.seen[epoch], metrics["val_accuracy"]
        stop = bool(others) and accuracy < np.percentile(others, 100 * (1 - 1 / REDUCTION))
        others.append(accuracy)
        return Decision.STOP if stop else decision


def run_ours(task: Task) -> None:
    folder = Path(task.folder)
    (folder / "space.py").write_text("")  # workers are sent it, and nobody asks it
    spec = StudySpec(
        name=NAME,
        space="space.py:design",
        data=DataSpec("digits", max_train=64),
        budget=BudgetSpec(trials=task.trials),
        sampler=SamplerSpec("random"),
        seed=task.seed,
        epochs=EPOCHS,
        execution=ExecutionSpec("ray", device="cpu", checkpoint_every=int(task.fault == "killed")),
        base=folder,
    )
    context = Setting(spec, folder, checkpoints=True).context
    reference = {"val_accuracy": 0.0, "macs": 1e7}
    study = open_study(spec, task.space(design), folder, context.designs, reference_point=reference)
    source = Halving(study) if task.fault == "stopped" else study
    RayTuneExecutor(context, folder, work=OurTraining(task)).run(source)


# --- drivers ---------------------------------------------------------------------------------------------------


def drive(tasks: list[Task]) -> None:
    """What a driver's process does: one task after the other, each leaving a word on how it ended."""
    quiet()
    for task in tasks:
        folder = Path(task.folder)
        (folder / "log").mkdir(parents=True, exist_ok=True)
        ray.init(address=task.address, log_to_driver=False, logging_level="ERROR")
        try:
            (run_stock if task.side == "stock" else run_ours)(task)
            ended = "all done"
        except Exception as error:  # how it ended is what is counted
            ended = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        (folder / "ended").write_text(ended)
        ray.shutdown()


def start_driver(tasks: list[Task], log: Path) -> subprocess.Popen[bytes]:
    told = json.dumps([dataclasses.asdict(task) for task in tasks])
    with open(log, "ab") as out:
        return subprocess.Popen([sys.executable, __file__, "--drive", told], stdout=out, stderr=out)


def live(tasks: list[Task], log: Path) -> None:
    """A driver from start to end.

    Raises:
        RuntimeError: It died.
    """
    driver = start_driver(tasks, log)
    try:
        if driver.wait(timeout=LIFE_SECONDS) != 0:
            raise RuntimeError(f"a driver ended with {driver.returncode}:\n{log.read_text()[-3000:]}")
    finally:
        driver.kill()
        driver.wait()


def live_and_die(task: Task, complete: int, log: Path) -> None:
    """A driver that is killed when so many trials are COMPLETE; what they are is left in a file.

    Raises:
        RuntimeError: It ended before, or took too long.
    """
    driver, deadline = start_driver([task], log), time.monotonic() + LIFE_SECONDS
    try:
        while states(trials_of(Path(task.folder)))["COMPLETE"] < complete:
            if driver.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"a driver ended before its time:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.wait()
    (Path(task.folder) / "killed.json").write_text(json.dumps(sorted(complete_designs(task))))


# --- counting --------------------------------------------------------------------------------------------------


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """All trials of a task's study; none before it was created."""
    if not (folder / "journal.log").is_file():
        return []
    try:
        return optuna.load_study(study_name=NAME, storage=open_storage("journal", folder)).trials
    except KeyError:
        return []


def states(trials: list[optuna.trial.FrozenTrial]) -> Counter[str]:
    return Counter(trial.state.name for trial in trials)


def complete_designs(task: Task) -> set[str]:
    return {design_key(**t.params) for t in trials_of(Path(task.folder)) if t.state.name == "COMPLETE"}


def count(task: Task) -> dict[str, Any]:
    """What is found in the ledger and the log of a task that is over."""
    folder = Path(task.folder)
    trials = trials_of(folder)
    epochs = {file.name: Counter(map(int, file.read_text().split())) for file in (folder / "log").iterdir()}
    ended = {name for name, times in epochs.items() if times[EPOCHS]}
    stopped = [t for t in trials if (name := design_key(**t.params)) in epochs and name not in ended]
    nan = [t for t in trials if task.fault == "nan" and t.params.get("rate", 0) > NAN_RATE]
    killed = folder / "killed.json"
    complete_before = json.loads(killed.read_text()) if killed.is_file() else []
    return {
        "trials": task.trials,
        "ended": (folder / "ended").read_text(),
        "states": dict(states(trials)),
        "complete": states(trials)["COMPLETE"],
        "running": states(trials)["RUNNING"],
        "stopped": len(stopped),
        "stopped_complete": states(stopped)["COMPLETE"],
        "nan": len(nan),
        "nan_running": states(nan)["RUNNING"],
        "nan_failed": sum(t.state.name == "FAIL" and bool(t.user_attrs.get("reason")) for t in nan),
        "lost": len(ended - complete_designs(task)),
        "complete_again": sum(epochs[name].total() > EPOCHS for name in complete_before),
        "epochs_again": sum(n - 1 for times in epochs.values() for n in times.values()),
    }


ROWS = (
    ("stopped", "recorded as COMPLETE", "{stopped_complete} of {stopped}"),
    ("killed", "left RUNNING", "{running}"),
    ("killed", "trained to the end, but not COMPLETE", "{lost}"),
    ("killed", "COMPLETE before the kill, trained again after it", "{complete_again}"),
    ("killed", "epochs trained again", "{epochs_again}"),
    ("killed", "COMPLETE at the end, of those wanted", "{complete} of {trials}"),
    ("nan", "left RUNNING", "{nan_running} of {nan}"),
    ("nan", "FAIL with its reason", "{nan_failed} of {nan}"),
    ("closure", "COMPLETE", "{complete} of {trials}"),
    ("closure", "the search ends with", "{ended}"),
)


def table(counts: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> str:
    """Markdown; a cell has one value a repetition, or the one that all share."""
    lines = header("fault", "count", *SIDES.values())
    for fault, what, form in ROWS:
        if fault not in counts:
            continue
        cells = []
        for side in SIDES:
            values = [form.format_map(found) for found in counts[fault][side]]
            cells.append(values[0] if len(set(values)) == 1 else ", ".join(values))
        lines.append(f"| {FAULTS[fault]} | {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(results: Results, trials: int, repetitions: int, root: Path, address: str) -> None:
    """Add counts by fault and side, one a repetition, to ``counts`` of the results; what is there is kept."""
    counts: dict[str, dict[str, list[Row]]] = results.found["counts"]
    log = root / "drivers.log"
    for seed in range(repetitions):
        for side in SIDES:
            tasks = {
                fault: Task(side, fault, str(root / f"{side}-{fault}-{seed}"), trials, seed, address)
                for fault, found in counts.items()
                if len(found[side]) <= seed
            }
            if killed := tasks.get("killed"):
                live_and_die(killed, max(1, round(trials * (seed + 1) / (repetitions + 1))), log)
                live([killed], log)
            # A search that died may leave workers behind: the closure comes last.
            if undisturbed := [task for fault, task in tasks.items() if fault != "killed"]:
                live(undisturbed, log)
            for fault, task in tasks.items():
                counts[fault][side].append(count(task))
                say(f"{side}, {fault}, repetition {seed}: {counts[fault][side][-1]}")
            results.save()


def main() -> None:
    given = parser(__doc__)
    given.add_argument("--trials", type=int, default=24, help="of each search, at least 4")
    given.add_argument("--repetitions", type=int, default=3)
    given.add_argument("--faults", nargs="+", default=list(FAULTS), choices=FAULTS)
    given.add_argument(
        "--snapshot-seconds", type=float, default=1.0, help="between Tune's snapshots of itself"
    )
    given.add_argument("--drive", help=argparse.SUPPRESS)
    args = given.parse_args()
    if args.drive:
        drive([Task(**task) for task in json.loads(args.drive)])
        return
    if args.trials < 4 or args.repetitions < 1:
        given.error("--trials must be at least 4 and --repetitions at least 1")
    quiet()
    facts = {
        **machine.facts(("ray", "optuna", "torch", "naskd")),
        "trials": args.trials,
        "repetitions": args.repetitions,
    }
    results = Results(args.json, args, facts, resume=args.resume)
    faults = [fault for fault in FAULTS if fault in args.faults]
    counts = results.found.setdefault("counts", {fault: {side: [] for side in SIDES} for fault in faults})
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="naskd-faults-") as folder:
        os.environ.update(
            {
                CACHE_VARIABLE: str(Path(folder) / "cache"),
                "OMP_NUM_THREADS": "1",
                "TUNE_GLOBAL_CHECKPOINT_S": str(args.snapshot_seconds),
                "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
            }
        )
        connect("local", num_cpus=CPUS)
        address = ray.get_runtime_context().gcs_address
        try:
            measure(results, args.trials, args.repetitions, Path(folder), address)
        finally:
            ray.shutdown()
    results.found["seconds"] = results.found.get("seconds", 0) + round(time.monotonic() - started)
    results.save()
    print(table(counts))
    print(f"\n{machine.line(results.found)}, {results.found['seconds']} s")


if __name__ == "__main__":
    main()
