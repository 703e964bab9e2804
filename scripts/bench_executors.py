"""What running trials at once costs, and what it brings.

    python scripts/bench_executors.py --part a b c d --json executors.json

Parts, each with options of its own (``--help``):

- ``a``: overhead of a trial that returns at once. naskd's Ray executor on a run's journal file against Ray's ``Tuner``
  with ``OptunaSearch``, with its defaults and with ``reuse_actors=True``, its study in memory (the default) and in the
  same journal file; same sampler, space and objectives. All arms on one private cluster, in turns.
- ``b``: 2 workers against 1 on trainings of ``studies/digits.toml``: the same designs, drawn at random, in turns.
- ``c``: how many workers one driver keeps busy. A fake clock drives the real ``Study``; what asking and telling really
  take is charged to it. Beside it Optuna's bare ask and tell with the same sampler, storage and history.
- ``d``: ``studies/digits.toml`` from its beginning, serially and on a cluster of two raylets that share no cache: the
  hypervolume of the fronts, several seeds.

Prints one Markdown table a part at the end; ``--json`` keeps every single measurement.
"""

import argparse
import contextlib
import dataclasses
import gc
import heapq
import json
import math
import os
import platform
import random
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from naskd.networks.student import design_cost
from naskd.spec.design import ArchitectureSpec, Cost, StageSpec, TrainingSpec, TrialConfig
from naskd.spec.parse import parse_study
from naskd.spec.study import BudgetSpec, SamplerSpec, StudySpec
from naskd.study.leases import LEASE_SECONDS, RENEW_SECONDS, owner_id
from naskd.study.samplers import build_sampler
from naskd.study.storage import one_sync, open_storage, quiet
from naskd.study.study import Study
from naskd.trials.jobs import Job, TrialResult

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = {"val_accuracy": 0.0, "macs": 1e9}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, help="file for all measurements; rewritten after each part")
    parser.add_argument("--study", type=Path, default=ROOT / "studies/digits.toml", help="of parts b and d")
    part = parser.add_argument_group("a")
    part.add_argument("--overhead-trials", type=int, default=200)
    part.add_argument(
        "--cold-trials", type=int, default=30, help="of the defaults, which take over a second each"
    )
    part.add_argument("--overhead-rounds", type=int, default=3)
    part.add_argument("--overhead-samplers", nargs="+", default=["tpe", "random"])
    part = parser.add_argument_group("b")
    part.add_argument("--speedup-trials", type=int, default=30)
    part.add_argument("--speedup-rounds", type=int, default=3)
    part = parser.add_argument_group("c")
    part.add_argument("--samplers", nargs="+", default=["random", "nsga2", "tpe", "gp"])
    part.add_argument("--parameters", nargs="+", type=int, default=[20, 100])
    part.add_argument("--history", nargs="+", type=int, default=[100, 1000], help="complete trials")
    part.add_argument("--gp-history", type=int, default=100, help="gp asks for seconds: no more than this")
    part.add_argument("--gp-parameters", type=int, default=20, help="no more than this for gp")
    part.add_argument("--storages", nargs="+", choices=("journal", "memory", "sqlite"), default=["journal"])
    part.add_argument(
        "--window", type=int, default=40, help="trials that are told and asked for in a measurement"
    )
    part.add_argument(
        "--window-seconds", type=float, default=8.0, help="a window ends, after 2 trials at least"
    )
    part = parser.add_argument_group("d")
    part.add_argument("--seeds", type=int, default=3)
    part.add_argument("--front-trials", type=int, default=40)
    args = parser.parse_args()
    quiet()
    found: dict[str, Any] = {"command": shlex.join(sys.argv), "date": date.today().isoformat(), **machine()}
    found["parts"] = {}
    with tempfile.TemporaryDirectory(prefix="naskd-bench-") as folder:
        for name in args.part:
            measure, _ = PARTS[name]
            started, load = time.perf_counter(), os.getloadavg()
            (home := Path(folder) / name).mkdir()
            rows = measure(args, home)
            seconds = time.perf_counter() - started
            found["parts"][name] = {"rows": rows, "seconds": seconds, "load": [load, os.getloadavg()]}
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))
    print(f"{found['command']}\n{found['date']}, {found['cpus']} CPUs, {found['versions']}")
    for name in args.part:
        part = found["parts"][name]
        before, after = (load[0] for load in part["load"])
        print(f"\n({name}) {part['seconds']:.0f} s, load average {before:.1f} before, {after:.1f} after\n")
        print("\n".join(PARTS[name][1](part["rows"])))


def machine() -> dict[str, Any]:
    import ray
    import torch

    names = ((optuna.__name__, optuna.__version__), ("ray", ray.__version__), ("torch", torch.__version__))
    versions = ", ".join(
        f"{name} {version}" for name, version in (("Python", platform.python_version()), *names)
    )
    return {"cpus": len(os.sched_getaffinity(0)), "platform": platform.platform(), "versions": versions}


def middle(values: Sequence[float], digits: int = 1) -> str:
    """Median and range."""
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def in_turns(arms: Sequence[Any], rounds: int) -> Iterator[tuple[int, Any]]:
    """Each arm once a round, each time another one first."""
    for number in range(rounds):
        start = number % len(arms)
        for arm in (*arms[start:], *arms[:start]):
            yield number, arm
            gc.collect()


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


# --- a: overhead ---------------------------------------------------------------------------------------------------


def eight(trial: Any) -> TrialConfig:
    """8 parameters, 10^7 architectures: no design comes twice."""
    stages = tuple(
        StageSpec(
            "basic",
            depth=trial.suggest_int(f"stage{i}.depth", 1, 4),
            width=trial.suggest_int(f"stage{i}.width", 4, 64),
        )
        for i in range(3)
    )
    training = TrainingSpec(
        learning_rate=trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-4, 1e-1, log=True),
    )
    return TrialConfig(ArchitectureSpec(stages), training=training)


def made_up(sizes: Sequence[tuple[int, int]], learning_rate: float) -> dict[str, float]:
    """Two objectives of depths, widths and learning rate: larger is better and dearer, and rates have an optimum."""
    macs = float(sum(depth * width * width for depth, width in sizes)) * 64
    accuracy = 1 - 1 / math.log(macs) - abs(math.log10(learning_rate) + 2) / 20
    return {"val_accuracy": accuracy, "macs": macs}


def of_design(config: TrialConfig) -> dict[str, float]:
    sizes = [(stage.depth, stage.width) for stage in config.architecture.stages]
    return made_up(sizes, config.training.learning_rate)


def work_of_ours(job: Job, context: Any) -> Any:
    assert job.config is not None
    return TrialResult("complete", seed=job.seed, metrics={**of_design(job.config), "n_params": 1.0})
    yield


def work_of_stock(config: dict[str, Any]) -> None:
    from ray import tune

    sizes = [(config[f"stage{i}.depth"], config[f"stage{i}.width"]) for i in range(3)]
    tune.report(made_up(sizes, config["learning_rate"]))


def space_of_stock(trial: Any) -> None:
    eight(trial)


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to run trials; `trials` of them."""

    name: str
    sampler: str
    storage: str
    trials: int


def measure_overhead(args: argparse.Namespace, folder: Path) -> list[Row]:
    import ray

    from naskd.executors.ray.connect import connect

    arms = []
    for sampler in args.overhead_samplers:
        arms.append(Arm("ours", sampler, "journal", args.overhead_trials))
        arms += [Arm("warm", sampler, storage, args.overhead_trials) for storage in ("memory", "journal")]
    # A second of process start hides what the sampler costs, so that the defaults need only one.
    arms += [
        Arm("defaults", args.overhead_samplers[0], storage, args.cold_trials)
        for storage in ("memory", "journal")
    ]
    connect("local", num_cpus=2)
    rows = []
    try:
        for sampler in args.overhead_samplers:
            run_arm(Arm("ours", sampler, "journal", 4), folder / f"first-{sampler}", args)
        run_arm(Arm("warm", "random", "memory", 4), folder / "first-warm", args)
        for number, arm in in_turns(arms, args.overhead_rounds):
            home = folder / f"{number}-{arm.name}-{arm.sampler}-{arm.storage}"
            rows.append({"round": number, **dataclasses.asdict(arm), **run_arm(arm, home, args)})
            say("a", rows[-1])
            shutil.rmtree(home)
    finally:
        ray.shutdown()
    return rows


def run_arm(arm: Arm, folder: Path, args: argparse.Namespace) -> Row:
    folder.mkdir()
    run = run_ours if arm.name == "ours" else run_stock
    began = time.time()
    cpu = time.process_time()
    trials = run(arm, folder)
    ended, cpu = time.time(), time.process_time() - cpu
    states = [trial.state.name for trial in trials]
    assert states == ["COMPLETE"] * arm.trials, f"{arm}: {states}"
    told = sorted(trial.datetime_complete.timestamp() for trial in trials)
    steady = (told[-1] - told[0]) / (len(told) - 1)
    # What runs fewer trials would otherwise pay for its start with fewer of them.
    whole = (ended - began + (args.overhead_trials - arm.trials) * steady) / args.overhead_trials
    return {
        "wall_s": ended - began,
        "whole_ms": whole * 1e3,
        "steady_ms": steady * 1e3,
        "first_s": told[0] - began,
        "driver_cpu_ms": cpu / arm.trials * 1e3,
    }


def run_ours(arm: Arm, folder: Path) -> list[Any]:
    from naskd.executors.ray.tune import RayTuneExecutor
    from naskd.store.artifacts import ArtifactStore
    from naskd.store.checkpoints import CheckpointStore
    from naskd.trials.context import TrialContext

    spec = made_up_study(arm.trials, arm.sampler, folder)
    context = TrialContext(spec, ArtifactStore(folder / "artifacts"))
    context.checkpoints = CheckpointStore(folder / "checkpoints")
    storage = open_storage(arm.storage, folder, writing=True)
    study = Study(spec, eight, storage, context, identity={}, reference_point=REFERENCE)
    RayTuneExecutor(context, folder, work_of_ours).run(study)
    return study.optuna_study.get_trials(deepcopy=False)


def run_stock(arm: Arm, folder: Path) -> list[Any]:
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    search = OptunaSearch(
        space=space_of_stock,
        metric=["val_accuracy", "macs"],
        mode=["max", "min"],
        sampler=build_sampler(SamplerSpec(name=arm.sampler), 0, 0),  # type: ignore[arg-type]
        study_name="stock",
        storage=open_storage("journal", folder, writing=True) if arm.storage == "journal" else None,
    )
    tuner = tune.Tuner(
        work_of_stock,
        tune_config=tune.TuneConfig(
            search_alg=search, num_samples=arm.trials, reuse_actors=arm.name == "warm"
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    )
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        tuner.fit()
    return search._ot_study.get_trials(deepcopy=False)  # type: ignore[no-any-return]


def made_up_study(trials: int, sampler: str, folder: Path) -> StudySpec:
    return StudySpec.from_dict(
        {
            "name": "made-up",
            "space": f"{Path(__file__).resolve()}:eight",
            "data": {"kind": "digits"},
            "budget": {"trials": trials},
            "sampler": {"name": sampler},
            "execution": {"executor": "ray", "device": "cpu"},
            "base": str(folder),
        }
    )


def overhead_table(rows: list[Row]) -> list[str]:
    def of(row: Row, key: str) -> list[float]:
        same = ("name", "sampler", "storage")
        return [r[key] for r in rows if all(r[k] == row[k] for k in same)]

    lines = [
        "| sampler | arm | storage | trials | ms a trial, whole run | ms a trial, first to last | driver's CPU ms | "
        "first after s | ours / this, whole | ours / this, first to last | goal |",
        "|---" * 11 + "|",
    ]
    for row in sorted(
        (r for r in rows if r["round"] == 0), key=lambda r: (r["sampler"] != "tpe", r["sampler"])
    ):
        ours = {**row, "name": "ours", "storage": "journal"}
        ratios, goal = {}, "-"
        for key in ("whole_ms", "steady_ms"):
            ratios[key] = [a / b for a, b in zip(of(ours, key), of(row, key), strict=True)]
        if row["name"] != "ours":
            limit = 1.0 if row["name"] == "warm" else 1 / 20
            goal = f"{limit:g} " + ("met" if statistics.median(ratios["whole_ms"]) <= limit else "missed")
        digits = 3 if row["name"] == "defaults" else 2
        shown = [middle(r, digits) if row["name"] != "ours" else "-" for r in ratios.values()]
        lines.append(
            f"| {row['sampler']} | {row['name']} | {row['storage']} | {len(of(row, 'whole_ms'))} x {row['trials']} | "
            f"{middle(of(row, 'whole_ms'))} | {middle(of(row, 'steady_ms'))} | {middle(of(row, 'driver_cpu_ms'))} | "
            f"{middle(of(row, 'first_s'))} | {' | '.join(shown)} | {goal} |"
        )
    full = max(row["trials"] for row in rows)
    lines += [
        "",
        "Median (range) over rounds; ratios within a round. The whole run, which the goals are about, is that of "
        f"{full} trials: of an arm with fewer, the rest is added at its own rate from the first trial to the last.",
    ]
    return lines


# --- b: two workers against one ------------------------------------------------------------------------------------


def digits(args: argparse.Namespace, **changes: Any) -> StudySpec:
    spec = parse_study(args.study)
    execution = dataclasses.replace(spec.execution, device="cpu", threads=1, **changes.pop("execution", {}))
    return dataclasses.replace(spec, execution=execution, **changes)


def measure_speedup(args: argparse.Namespace, folder: Path) -> list[Row]:
    import ray

    import naskd
    from naskd.executors.ray.connect import connect

    def search(name: str, seed: int, workers: int, trials: int) -> Row:
        spec = digits(
            args, name=name, seed=seed, sampler=SamplerSpec(name="random"), budget=BudgetSpec(trials=trials),
            execution={"executor": "ray", "workers": workers},
        )  # fmt: skip
        began = time.perf_counter()
        run = naskd.search(spec, out=folder / name)
        wall = time.perf_counter() - began
        trained = [t for t in optuna_trials(run) if "result" in t.user_attrs]
        ends = sorted(t.datetime_complete for t in trained)
        seconds = ends[-1] - min(t.datetime_start for t in trained)
        return {
            "trials": len(trained),
            "failed": sum(t.state.name == "FAIL" for t in trained),
            "trials_per_minute": 60 * len(trained) / seconds.total_seconds(),
            "steady_per_minute": 60 * (len(ends) - 1) / (ends[-1] - ends[0]).total_seconds(),
            "wall_s": wall,
            "trained_s": sum(t.user_attrs["result"]["wall_seconds"] for t in trained),
            "designs": sorted(t.user_attrs["config_id"] for t in trained),
        }

    rows = []
    with cache(folder / "cache"):
        connect("local", num_cpus=2)
        try:
            # Makes the teacher and the assistant, and fills the bank of what they say: both arms find them.
            search("first", 1000, 2, 8)
            for number, workers in in_turns((1, 2), args.speedup_rounds):
                row = search(f"{number}-{workers}", number, workers, args.speedup_trials)
                rows.append({"round": number, "workers": workers, **row})
                say("b", {key: value for key, value in rows[-1].items() if key != "designs"})
        finally:
            ray.shutdown()
    for number in range(args.speedup_rounds):
        one, two = (r["designs"] for r in rows if r["round"] == number)
        assert one == two, f"round {number}: the arms trained other designs"
    return rows


def optuna_trials(run: Any) -> list[Any]:
    from naskd.study.record import load_ledger

    return load_ledger(run.spec, run.path).get_trials(deepcopy=False)


@contextlib.contextmanager
def cache(folder: Path) -> Iterator[None]:
    """Workers of a cluster that is started inside keep what they fetch in `folder`."""
    before = os.environ.get("NASKD_CACHE")
    os.environ["NASKD_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["NASKD_CACHE"]
        if before is not None:
            os.environ["NASKD_CACHE"] = before


def speedup_table(rows: list[Row]) -> list[str]:
    by = {w: sorted((r for r in rows if r["workers"] == w), key=lambda r: r["round"]) for w in (1, 2)}
    lines = [
        "| workers | trials | failed | trials a minute | times one worker's | after the first one | "
        "times one worker's | goal | seconds of training a trial | whole run s |",
        "|---" * 10 + "|",
    ]
    for workers, mine in by.items():
        cells = []
        for rate in ("trials_per_minute", "steady_per_minute"):
            ratios = [two[rate] / one[rate] for two, one in zip(mine, by[1], strict=True)]
            cells += [middle([r[rate] for r in mine]), middle(ratios, 2)]
        goal = "-" if workers == 1 else "1.8 " + ("met" if statistics.median(ratios) >= 1.8 else "missed")
        lines.append(
            f"| {workers} | {len(mine)} x {mine[0]['trials']} | {sum(r['failed'] for r in mine)} | "
            f"{' | '.join(cells)} | {goal} | {middle([r['trained_s'] / r['trials'] for r in mine], 2)} | "
            f"{middle([r['wall_s'] for r in mine], 0)} |"
        )
    lines += [
        "",
        "A minute begins when the first trial is asked for, the start of the workers included, or when the first "
        "trial ends, which the goal is about.",
    ]
    return lines


# --- c: workers that one driver feeds ------------------------------------------------------------------------------

TRIAL_SECONDS = 60.0
TRIAL_SPREAD = 0.1
"""Trials take up to this fraction more or less."""
EPOCHS = 20
BUSY = 0.95
MOST_PLACED = 1000
"""Running trials in the books of a measurement; where a driver feeds more workers, the others are left out."""


class NoResources:
    """Costs in closed form, and nothing to share."""

    def design_cost(self, config: TrialConfig) -> Cost:
        return design_cost(config.architecture, 1, 10, 8)

    def design_problems(self, config: TrialConfig) -> list[str]:
        return []

    def recipes(self, config: TrialConfig) -> list[Any]:
        return []

    def has_artifact(self, artifact_id: str) -> bool:
        return False


def space_of(n_parameters: int) -> Callable[[Any], TrialConfig]:
    """The space of part a, and parameters of all kinds beside it that the made-up accuracy does not depend on."""

    def space(trial: Any) -> TrialConfig:
        config = eight(trial)
        for number in range(8, n_parameters):
            if number % 3 == 0:
                trial.suggest_float(f"p{number}", 1e-3, 1.0, log=True)
            elif number % 3 == 1:
                trial.suggest_int(f"p{number}", 1, 64)
            else:
                trial.suggest_categorical(f"p{number}", ["a", "b", "c", "d"])
        return config

    return space


class Drawn:
    """What a space asks of a trial, answered at random."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int) -> Any:
        return self._keep(name, IntDistribution(low, high), self.chance.randint(low, high))

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> Any:
        value = math.exp(self.chance.uniform(math.log(low), math.log(high)))
        return self._keep(name, FloatDistribution(low, high, log=log), min(max(value, low), high))

    def suggest_categorical(self, name: str, choices: list[str]) -> Any:
        return self._keep(name, CategoricalDistribution(choices), self.chance.choice(choices))

    def _keep(self, name: str, distribution: Any, value: Any) -> Any:
        self.params[name], self.distributions[name] = value, distribution
        return value


def drawn_trials(n_parameters: int, n: int, seed: int, state: optuna.trial.TrialState) -> list[Any]:
    """Trials as a study writes them, complete or running in this process."""
    chance, space = random.Random(seed), space_of(n_parameters)
    trials = []
    for _ in range(n):
        drawn = Drawn(chance)
        config = space(drawn)
        metrics = of_design(config)
        attrs: Row = {"owner": owner_id(), "lease": time.time() + LEASE_SECONDS, "config": config.to_dict()}
        attrs |= {"config_id": config.config_id, "seed": chance.randrange(2**31)}
        values = None
        if state is optuna.trial.TrialState.COMPLETE:
            values = [metrics["val_accuracy"], metrics["macs"]]
            attrs |= {**metrics, "result": result_of(config, attrs["seed"]).to_dict()}
        trials.append(
            optuna.trial.create_trial(
                state=state,
                values=values,
                params=drawn.params,
                distributions=drawn.distributions,
                user_attrs=attrs,
            )
        )
    return trials


def result_of(config: TrialConfig, seed: int) -> TrialResult:
    curve = tuple({"epoch": float(e), "val_accuracy": 0.5, "loss": 1.0} for e in range(EPOCHS))
    metrics = {**of_design(config), "n_params": 1.0}
    return TrialResult("complete", seed=seed, metrics=metrics, curve=curve, wall_seconds=TRIAL_SECONDS)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is measured: who asks, and in which state of the books."""

    side: str
    sampler: str
    n_parameters: int
    history: int
    storage: str


class Bare:
    """Optuna's own ask and tell."""

    def __init__(self, study: optuna.Study, space: Callable[[Any], TrialConfig]) -> None:
        self.study, self.space = study, space

    def ask(self) -> Job:
        trial = self.study.ask()
        return Job(str(trial.number), "trial", self.space(trial), 0, EPOCHS)

    def tell(self, job: Job, result: TrialResult) -> None:
        self.study.tell(int(job.job_id), values=[result.metrics["val_accuracy"], result.metrics["macs"]])


class Books:
    """A study with so many complete trials, written once for each number of parameters and copied for each use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict[tuple[int, int, str], Path] = {}
        self._copies = 0

    def spec(self, case: Case) -> StudySpec:
        spec = made_up_study(1, case.sampler, self.folder)
        return dataclasses.replace(spec, budget=BudgetSpec(seconds=1e9), epochs=EPOCHS)

    def open(self, case: Case, running: int) -> tuple[Any, list[Job]]:
        """The source of a case with `running` trials at work, and their jobs."""
        storage = self._storage(case)
        space, spec = space_of(case.n_parameters), self.spec(case)
        study = Study(spec, space, storage, NoResources(), identity={}, reference_point=REFERENCE)  # type: ignore[arg-type]
        source: Any = study
        first = len(study.optuna_study.get_trials(deepcopy=False))
        trials = drawn_trials(case.n_parameters, running, 2, optuna.trial.TrialState.RUNNING)
        with one_sync(storage):
            study.optuna_study.add_trials(trials)
        jobs = [
            Job(
                str(first + i),
                "trial",
                TrialConfig.from_dict(t.user_attrs["config"]),
                t.user_attrs["seed"],
                EPOCHS,
            )
            for i, t in enumerate(trials)
        ]
        # As if they had been asked for, one after the other, which takes as long as all the trials of a minute.
        study._running.update({job.job_id: job for job in jobs})
        if case.side == "optuna":
            source = Bare(study.optuna_study, space)
        return source, jobs

    def _storage(self, case: Case) -> optuna.storages.BaseStorage:
        self._copies += 1
        (folder := self.folder / f"copy-{self._copies}").mkdir()
        if case.storage == "memory":
            storage: optuna.storages.BaseStorage = optuna.storages.InMemoryStorage()
            self._fill(storage, case)
            return storage
        key = (case.n_parameters, case.history, case.storage)
        if key not in self._written:
            (home := self.folder / "-".join(map(str, key))).mkdir()
            self._fill(open_storage(case.storage, home, writing=True), case)
            self._written[key] = home
        shutil.copytree(self._written[key], folder, dirs_exist_ok=True)
        return open_storage(case.storage, folder, writing=True)

    def _fill(self, storage: optuna.storages.BaseStorage, case: Case) -> None:
        with one_sync(storage):
            study = Study(
                self.spec(case), space_of(case.n_parameters), storage, NoResources(),  # type: ignore[arg-type]
                identity={}, reference_point=REFERENCE,
            )  # fmt: skip
            trials = drawn_trials(case.n_parameters, case.history, 1, optuna.trial.TrialState.COMPLETE)
            study.optuna_study.add_trials(trials)


def window(source: Any, jobs: list[Job], args: argparse.Namespace) -> Row:
    """Tell trials and ask for others while all workers are busy; milliseconds of each call.

    The running trials have begun at any moment of the last minute. The fake clock goes on to the end of the next one,
    and the driver is free again when its real calls are over.
    """
    chance = random.Random(0)
    ends = [(chance.uniform(0, TRIAL_SECONDS), number, job) for number, job in enumerate(jobs)]
    heapq.heapify(ends)
    costs: Row = {"ask_ms": [], "tell_ms": [], "report_ms": [], "renew_ms": []}
    free, began = 0.0, time.perf_counter()
    for count in range(args.window + 1):
        end, number, job = heapq.heappop(ends)
        assert job.config is not None
        took = {}
        if isinstance(source, Study):
            at = time.perf_counter()
            source.report(job, EPOCHS, {"val_accuracy": 0.5})
            took["report_ms"] = time.perf_counter() - at
        result = result_of(job.config, job.seed)
        at = time.perf_counter()
        source.tell(job, result)
        told = time.perf_counter()
        job = source.ask()
        asked = time.perf_counter()
        assert job is not None
        took |= {"tell_ms": told - at, "ask_ms": asked - told}
        free = max(free, end) + sum(took.values())
        heapq.heappush(ends, (free + trial_seconds(chance), number, job))
        # The first calls fill caches of Optuna's, once a session.
        if count >= 1:
            for name, seconds in took.items():
                costs[name].append(seconds * 1e3)
            if count >= 2 and asked - began > args.window_seconds:
                break
    if isinstance(source, Study):
        at = time.perf_counter()
        source.renew()
        costs["renew_ms"].append((time.perf_counter() - at) * 1e3 / len(source._running))
    return costs


def trial_seconds(chance: random.Random) -> float:
    return TRIAL_SECONDS * (1 + chance.uniform(-TRIAL_SPREAD, TRIAL_SPREAD))


def busy(workers: int, seconds: Sequence[float], generations: int = 5) -> float:
    """Share of their time that workers train, when each of their trials costs the one driver one of `seconds`.

    The first generation is left out: there, all workers ask at once.
    """
    chance = random.Random(1)
    waiting = [(0.0, number) for number in range(workers)]
    free = trained = waited = 0.0
    for count in range(workers * generations):
        ready, number = heapq.heappop(waiting)
        free = max(free, ready) + chance.choice(seconds)
        length = trial_seconds(chance)
        if count >= workers:
            trained += length
            waited += free - ready
        heapq.heappush(waiting, (free + length, number))
    return trained / (trained + waited)


def most_workers(seconds: Sequence[float]) -> int:
    """The largest number that is kept 95 % busy, by doubling and bisection; 0 when not even one is."""
    low, high = 0, 1
    while busy(high, seconds) >= BUSY:
        low, high = high, 2 * high
    while high - low > max(1, low // 100):
        between = (low + high) // 2
        low, high = (between, high) if busy(between, seconds) >= BUSY else (low, between)
    return low


def measure_scale(args: argparse.Namespace, folder: Path) -> list[Row]:
    rows = []
    for n_parameters in args.parameters:
        books = Books(folder / str(n_parameters))
        books.folder.mkdir()
        for storage in args.storages:
            for sampler in args.samplers:
                affordable = n_parameters <= args.gp_parameters
                for history in args.history:
                    if sampler == "gp" and not (affordable and history <= args.gp_history):
                        continue
                    for side in ("ours", "optuna"):
                        case = Case(side, sampler, n_parameters, history, storage)
                        rows.append({**dataclasses.asdict(case), **measure_case(case, books, args)})
                        say("c", {k: v for k, v in rows[-1].items() if not isinstance(v, list)})
    return rows


def measure_case(case: Case, books: Books, args: argparse.Namespace) -> Row:
    """Costs with as many running trials as the driver can feed, which samplers see: so the number is found in turns."""
    workers, placed = 0, 8 if case.sampler == "gp" else 200
    for _ in range(3):
        source, jobs = books.open(case, placed)
        costs = window(source, jobs, args)
        seconds = [(tell + ask) / 1e3 for tell, ask in zip(costs["tell_ms"], costs["ask_ms"], strict=True)]
        workers = most_workers(seconds)
        before, placed = placed, max(1, min(workers, MOST_PLACED))
        if abs(placed - before) <= 0.2 * before or case.sampler == "gp":
            break
    found = {**costs, "running": before, "workers": workers, "window": len(seconds)}
    if case.side == "ours":
        # What an executor asks for besides: a report each epoch, and every trial's lease renewed three times a minute.
        more = (
            EPOCHS * statistics.median(costs["report_ms"])
            + TRIAL_SECONDS / RENEW_SECONDS * costs["renew_ms"][0]
        )
        found["workers_with_reports"] = most_workers([s + more / 1e3 for s in seconds])
    return found


def scale_table(rows: list[Row]) -> list[str]:
    lines = [
        "| sampler | parameters | complete trials | storage | side | running trials | calls | ask ms | tell ms | "
        "workers 95 % busy | with reports and leases |",
        "|---" * 11 + "|",
    ]
    lines += [
        f"| {row['sampler']} | {row['n_parameters']} | {row['history']} | {row['storage']} | {row['side']} | "
        f"{row['running']} | {row['window']} | {middle(row['ask_ms'])} | {middle(row['tell_ms'])} | {row['workers']} | "
        f"{row.get('workers_with_reports', '-')} |"
        for row in rows
    ]
    lines += [
        "",
        f"Trials of {TRIAL_SECONDS:g} s ± {TRIAL_SPREAD:.0%}. So many trials were told and asked for with that many "
        "complete and running ones in the books; the measured costs, drawn at random, then occupy the one driver for "
        "5 generations of trials, with numbers of workers found by doubling and bisection (to 1 %). The last column "
        f"charges {EPOCHS} reports a trial and the renewal of its lease as well. Ray Tune's own loop is in part a.",
    ]
    return lines


# --- d: fronts -----------------------------------------------------------------------------------------------------


def measure_fronts(args: argparse.Namespace, folder: Path) -> list[Row]:
    import naskd

    rows = []
    with two_raylets(folder) as address:
        for seed, side in in_turns(("serial", "two raylets"), args.seeds):
            execution = {} if side == "serial" else {"executor": "ray", "address": address}
            spec = digits(
                args, name=f"seed-{seed}", seed=seed, execution=execution, budget=BudgetSpec(trials=args.front_trials),
                reference_point={"val_accuracy": 0.5, "macs": 2e6},
            )  # fmt: skip
            began = time.perf_counter()
            run = naskd.search(spec, out=folder / side.replace(" ", "-") / spec.name)
            record = run.to_dict()
            counts = record["counts"]
            rows.append(
                {
                    "seed": seed,
                    "side": side,
                    "hypervolume": record["hypervolume"],
                    "front": len(record["trials"]),
                    "complete": counts["complete"],
                    "failed": counts["failed"],
                    "running": counts["running"],
                    "wall_s": time.perf_counter() - began,
                }
            )
            say("d", rows[-1])
    return rows


@contextlib.contextmanager
def two_raylets(folder: Path) -> Iterator[str]:
    """The address of a cluster of two nodes with a CPU each, whose workers share no folder of ours."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for number in range(2):
            env = {"NASKD_CACHE": str(folder / f"cache-{number}"), "OMP_NUM_THREADS": "1"}
            more = {"include_dashboard": False} if number == 0 else {}
            cluster.add_node(num_cpus=1, env_vars=env, **more)
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def fronts_table(rows: list[Row]) -> list[str]:
    sides = ("serial", "two raylets")
    by = {s: [r for r in sorted(rows, key=lambda r: r["seed"]) if r["side"] == s] for s in sides}
    lines = [
        "| executor | seeds x trials | failed | hypervolume, mean ± sd | on the front | seconds |",
        "|---" * 6 + "|",
    ]
    volumes = {side: [r["hypervolume"] for r in mine] for side, mine in by.items()}
    for side, mine in by.items():
        lines.append(
            f"| {side} | {len(mine)} x {mine[0]['complete'] + mine[0]['failed']} | {sum(r['failed'] for r in mine)} | "
            f"{statistics.fmean(volumes[side]):.4f} ± {spread(volumes[side]):.4f} | "
            f"{middle([r['front'] for r in mine], 0)} | {middle([r['wall_s'] for r in mine], 0)} |"
        )
    pairs = [two - one for one, two in zip(*volumes.values(), strict=True)]
    low, high = interval(pairs)
    noise = spread(volumes["serial"])
    verdict = "within" if abs(statistics.fmean(pairs)) <= noise else "not within"
    lines += [
        "",
        f"Two raylets minus serial, paired by seed: {statistics.fmean(pairs):+.4f}, sd {spread(pairs):.4f}, 95 % "
        f"interval [{low:+.4f}, {high:+.4f}]: {verdict} the noise of the seed (sd {noise:.4f} over the serial ones).",
    ]
    return lines


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def interval(values: list[float]) -> tuple[float, float]:
    """95 % t interval of the mean."""
    from scipy.stats import t

    mean = statistics.fmean(values)
    if len(values) < 2:
        return -math.inf, math.inf
    half = float(t.ppf(0.975, len(values) - 1)) * spread(values) / math.sqrt(len(values))
    return mean - half, mean + half


PARTS: dict[str, tuple[Callable[[argparse.Namespace, Path], list[Row]], Callable[[list[Row]], list[str]]]] = {
    "a": (measure_overhead, overhead_table),
    "b": (measure_speedup, speedup_table),
    "c": (measure_scale, scale_table),
    "d": (measure_fronts, fronts_table),
}

if __name__ == "__main__":
    main()
