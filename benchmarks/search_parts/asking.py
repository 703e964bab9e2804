"""How long a proposal takes with 1,000 finished and 8 pending trials, and how many are made twice."""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import optuna

from harness.made_up import eight, made_up_facts, of_design
from harness.results import Row, say
from harness.spread import header, middle
from naskd.spec.datasets import DataSpec
from naskd.spec.study import BudgetSpec, SamplerSpec, StudySpec
from naskd.study.study import Study
from naskd.trials.jobs import Job, TrialResult

SAMPLERS = ("ehvi", "tpe", "nsga2", "random")
FINISHED, PENDING, ASKED = 1000, 8, 40


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """One row for each sampler."""
    return [one(name) for name in SAMPLERS]


def one(sampler: str) -> Row:
    """A study whose first trials are drawn at random, and whose sampler is then asked."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.InMemoryStorage()
    first = _study("random", storage, FINISHED)
    while (job := first.ask()) is not None:
        first.tell(job, _result(job))
    source = _study(sampler, storage, FINISHED + PENDING + ASKED)
    pending = [source.ask() for _ in range(PENDING)]
    assert None not in pending
    seconds, before = [], len(source.optuna_study.get_trials(deepcopy=False))
    for _ in range(ASKED):
        began = time.perf_counter()
        job = source.ask()
        seconds.append(time.perf_counter() - began)
        assert job is not None
        source.tell(job, _result(job))
    twice = len(source.optuna_study.get_trials(deepcopy=False)) - before - ASKED
    say(f"ask: {sampler}")
    return {"sampler": sampler, "seconds": seconds, "twice": twice}


def _study(sampler: str, storage: Any, trials: int) -> Study:
    spec = StudySpec(
        name="asked",
        space="space.py:eight",
        data=DataSpec("digits"),
        budget=BudgetSpec(trials=trials),
        sampler=SamplerSpec(sampler),
    )
    return Study(
        spec, eight, storage, made_up_facts(), identity={}, reference_point={"val_accuracy": 0.0, "macs": 1e9}
    )


def _result(job: Job) -> TrialResult:
    assert job.config is not None
    values = of_design(job.config)
    curve = tuple({"epoch": e, "val_accuracy": values["val_accuracy"] * e / 3} for e in (1, 2, 3))
    return TrialResult("complete", job.seed, metrics=values, curve=curve, train_macs=1, spent_macs=1)


def table(rows: list[Row]) -> list[str]:
    """Milliseconds of a proposal."""
    lines = header("sampler", "ms a proposal, median (range)", "median ms", "designs proposed twice")
    for row in rows:
        ms = [1000 * seconds for seconds in row["seconds"]]
        lines.append(
            f"| {row['sampler']} | {middle(ms, 0)} | {statistics.median(ms):.0f} | {row['twice']} of {ASKED} |"
        )
    return lines
