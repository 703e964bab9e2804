"""Overhead of a trial that returns at once: ours, and Ray's Tuner with OptunaSearch."""

import argparse
import contextlib
import dataclasses
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from harness.images import made_up_images
from harness.made_up import eight, made_up, made_up_study, of_design
from harness.results import Row, say
from harness.setting import Setting, open_study
from harness.spread import header, middle, ratios, verdict
from harness.timing import in_turns
from naskd.spec.study import SamplerSpec
from naskd.study.samplers import build_sampler
from naskd.study.storage import open_storage
from naskd.trials.jobs import Job, TrialResult


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


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
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

    spec = made_up_study(arm.trials, arm.sampler, folder)
    context = Setting(spec, folder, data=made_up_images(32, 16, 8), checkpoints=True).context
    study = open_study(spec, eight, folder, context.designs, storage=arm.storage)
    RayTuneExecutor(context, folder, work_of_ours).run(study)
    return study.optuna_study.get_trials(deepcopy=False)


def run_stock(arm: Arm, folder: Path) -> list[Any]:
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    search = OptunaSearch(
        space=space_of_stock,
        metric=["val_accuracy", "macs"],
        mode=["max", "min"],
        sampler=build_sampler(SamplerSpec(name=arm.sampler), 0, 0),
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
    # The searcher of Ray keeps its study to itself, and what it holds is what is compared.
    found: list[Any] = search._ot_study.get_trials(deepcopy=False)
    return found


def table(rows: list[Row]) -> list[str]:
    def of(row: Row, key: str) -> list[float]:
        same = ("name", "sampler", "storage")
        return [r[key] for r in rows if all(r[k] == row[k] for k in same)]

    lines = header(
        "sampler",
        "arm",
        "storage",
        "trials",
        "ms a trial, whole run",
        "ms a trial, first to last",
        "driver's CPU ms",
        "first after s",
        "ours / this, whole",
        "ours / this, first to last",
        "goal",
    )
    for row in sorted(
        (r for r in rows if r["round"] == 0), key=lambda r: (r["sampler"] != "tpe", r["sampler"])
    ):
        ours = {**row, "name": "ours", "storage": "journal"}
        folds, goal = {}, "-"
        for key in ("whole_ms", "steady_ms"):
            folds[key] = ratios(of(ours, key), of(row, key))
        if row["name"] != "ours":
            limit = 1.0 if row["name"] == "warm" else 1 / 20
            goal = f"{limit:g} " + (verdict(statistics.median(folds["whole_ms"]) <= limit))
        digits = 3 if row["name"] == "defaults" else 2
        shown = [middle(r, digits) if row["name"] != "ours" else "-" for r in folds.values()]
        lines.append(
            f"| {row['sampler']} | {row['name']} | {row['storage']} | {len(of(row, 'whole_ms'))} x {row['trials']} | "
            f"{middle(of(row, 'whole_ms'), 1)} | {middle(of(row, 'steady_ms'), 1)} | "
            f"{middle(of(row, 'driver_cpu_ms'), 1)} | "
            f"{middle(of(row, 'first_s'), 1)} | {' | '.join(shown)} | {goal} |"
        )
    full = max(row["trials"] for row in rows)
    lines += [
        "",
        "Median (range) over rounds; ratios within a round. The whole run, which the goals are about, is that of "
        f"{full} trials: of an arm with fewer, the rest is added at its own rate from the first trial to the last.",
    ]
    return lines
