"""Workers that one driver feeds: the real study on a fake clock, beside Optuna's bare ask and tell."""

import argparse
import contextlib
import dataclasses
import heapq
import math
import random
import shutil
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from harness.made_up import eight, made_up_facts, made_up_study, of_design
from harness.results import Row, say
from harness.setting import open_study
from harness.spread import header, middle
from naskd.executors.local.replay import ReplayExecutor
from naskd.spec.clock import FakeClock
from naskd.spec.design import TrialConfig
from naskd.spec.study import BudgetSpec, StudySpec
from naskd.study.leases import RENEW_SECONDS, owner_id
from naskd.study.storage import one_sync, open_storage
from naskd.study.study import Study
from naskd.tables import Recorded
from naskd.trials.jobs import Decision, Job, TrialResult

TRIAL_SECONDS = 60.0
TRIAL_SPREAD = 0.1
"""Trials take up to this fraction more or less."""
EPOCHS = 20
BUSY = 0.95
MOST_PLACED = 1000
"""Running trials in the ledger of a measurement; where a driver feeds more workers, the others are left out."""


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
        attrs: Row = {"owner": owner_id(), "config": config.to_dict()}
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
    """What is measured: who asks, and in which state of the ledger."""

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


class Ledgers:
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
        study = open_study(spec, space, self.folder, made_up_facts(), storage=storage)
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
            space = space_of(case.n_parameters)
            study = open_study(self.spec(case), space, self.folder, made_up_facts(), storage=storage)
            trials = drawn_trials(case.n_parameters, case.history, 1, optuna.trial.TrialState.COMPLETE)
            study.optuna_study.add_trials(trials)


class WindowOver(Exception):
    """Enough was measured."""


class Charged:
    """A source whose calls are measured, and charged to the clock: meanwhile the driver serves nobody.

    Args:
        source: A study, or Optuna alone.
        running: Jobs that are at work already; they are given first, and cost nothing.
        clock: Of the driver.
        args: How many trials are told and asked for, and for how long.
    """

    finished = False

    def __init__(
        self, source: Any, running: Sequence[Job], clock: FakeClock, args: argparse.Namespace
    ) -> None:
        self.source, self.clock, self.args = source, clock, args
        self.running = deque(running)
        self.costs: Row = {"ask_ms": [], "tell_ms": [], "report_ms": [], "renew_ms": []}
        self.began = time.perf_counter()

    def ask(self) -> Job:
        # Of one epoch, its last, which is all that the table has of a trial.
        return dataclasses.replace(self.running.popleft() if self.running else self._next(), until_epoch=1)

    def _next(self) -> Job:
        job = self._charge("ask_ms", self.source.ask)
        assert job is not None
        count = len(self.costs["ask_ms"])
        seconds = time.perf_counter() - self.began
        if count > self.args.window or (count > 2 and seconds > self.args.window_seconds):
            raise WindowOver
        return job

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        if isinstance(self.source, Study):
            self._charge("report_ms", self.source.report, job, epoch, metrics)
        return Decision.CONTINUE

    def tell(self, job: Job, result: TrialResult) -> None:
        assert job.config is not None
        self._charge("tell_ms", self.source.tell, job, result_of(job.config, job.seed))

    def _charge(self, name: str, call: Callable[..., Any], *given: Any) -> Any:
        at = time.perf_counter()
        answer = call(*given)
        seconds = time.perf_counter() - at
        self.costs[name].append(seconds * 1e3)
        self.clock.sleep(seconds)
        return answer


def window(source: Any, jobs: list[Job], args: argparse.Namespace) -> Row:
    """Tell trials and ask for others while all workers are busy; milliseconds of each call.

    The running trials have begun at any moment of the last minute. The fake clock goes on to the end of the next one,
    and the driver is free again when its real calls are over. One epoch of each trial is reported, its last.
    """
    chance, clock = random.Random(0), FakeClock()
    left = {job.config.config_id: chance.uniform(0, TRIAL_SECONDS) for job in jobs if job.config is not None}

    def table(config: TrialConfig) -> Recorded:
        seconds = left.pop(config.config_id, None) or trial_seconds(chance)
        return Recorded(({"val_accuracy": 0.5},), {}, epoch_seconds=seconds)

    charged = Charged(source, jobs, clock, args)
    with contextlib.suppress(WindowOver):
        ReplayExecutor(table, clock, len(jobs)).run(charged)
    # The first calls fill caches of Optuna's, once a process.
    costs: Row = {name: found[1:] for name, found in charged.costs.items()}
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


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    rows = []
    for n_parameters in args.parameters:
        ledgers = Ledgers(folder / str(n_parameters))
        ledgers.folder.mkdir()
        for storage in args.storages:
            for sampler in args.samplers:
                affordable = n_parameters <= args.gp_parameters
                for history in args.history:
                    if sampler == "gp" and not (affordable and history <= args.gp_history):
                        continue
                    for side in ("ours", "optuna"):
                        case = Case(side, sampler, n_parameters, history, storage)
                        rows.append({**dataclasses.asdict(case), **measure_case(case, ledgers, args)})
                        say("c", {k: v for k, v in rows[-1].items() if not isinstance(v, list)})
    return rows


def measure_case(case: Case, ledgers: Ledgers, args: argparse.Namespace) -> Row:
    """Costs with as many running trials as the driver can feed, which samplers see: so the number is found in turns."""
    workers, placed = 0, 8 if case.sampler == "gp" else 200
    for _ in range(3):
        source, jobs = ledgers.open(case, placed)
        costs = window(source, jobs, args)
        seconds = [(tell + ask) / 1e3 for tell, ask in zip(costs["tell_ms"], costs["ask_ms"], strict=True)]
        workers = most_workers(seconds)
        before, placed = placed, max(1, min(workers, MOST_PLACED))
        if abs(placed - before) <= 0.2 * before or case.sampler == "gp":
            break
    found = {**costs, "running": before, "workers": workers, "window": len(seconds)}
    if case.side == "ours":
        # What an executor asks for besides: a report each epoch; and a sign of life three times a minute.
        more = (
            EPOCHS * statistics.median(costs["report_ms"])
            + TRIAL_SECONDS / RENEW_SECONDS * costs["renew_ms"][0]
        )
        found["workers_with_reports"] = most_workers([s + more / 1e3 for s in seconds])
    return found


def table(rows: list[Row]) -> list[str]:
    lines = header(
        "sampler",
        "parameters",
        "complete trials",
        "storage",
        "side",
        "running trials",
        "calls",
        "ask ms",
        "tell ms",
        "workers 95 % busy",
        "with reports and leases",
    )
    lines += [
        f"| {row['sampler']} | {row['n_parameters']} | {row['history']} | {row['storage']} | {row['side']} | "
        f"{row['running']} | {row['window']} | {middle(row['ask_ms'], 1)} | {middle(row['tell_ms'], 1)} | "
        f"{row['workers']} | "
        f"{row.get('workers_with_reports', '-')} |"
        for row in rows
    ]
    lines += [
        "",
        f"Trials of {TRIAL_SECONDS:g} s ± {TRIAL_SPREAD:.0%}. So many trials were told and asked for with that many "
        "complete and running ones in the ledger; the measured costs, drawn at random, then occupy the one driver for "
        "5 generations of trials, with numbers of workers found by doubling and bisection (to 1 %). The last column "
        f"charges {EPOCHS} reports a trial and the renewal of its lease as well. Ray Tune's own loop is in part a.",
    ]
    return lines
