"""Whether a search that is warm-started from an earlier run needs less training, and what a useless one costs it.

The earlier run is a search on the same designs whose accuracies are others: passed through a curve and with noise, as
on other images; or exchanged among the designs, so that it tells nothing. Both searches have the same seed.
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.results import Row
from harness.spread import header
from naskd.spec.design import TrialConfig
from naskd.spec.study import BudgetSpec
from naskd.study.earlier import EarlierDesign, EarlierRun
from naskd.tables import Recorded, read_table
from search_parts.arms import Arm
from search_parts.reach import needed
from search_parts.repeating import measured
from search_parts.replayed import Searched, World, search, world_of

EARLIER_TRIALS, GOAL_TRIALS = 60, 100
SHARE = 0.6
"""Of the goal's training that each search may use."""
SAMPLERS = ("ehvi", "tpe")
NOISE = 0.02
"""Of an earlier run's accuracies, beside those of its validation images: designs are ordered a little differently."""


def _curved(recorded: Mapping[str, Recorded], draw: random.Random) -> dict[str, float]:
    """Accuracies of other images: a curve that keeps the order, and noise that does not."""
    return {
        name: 0.05 + 0.6 * row.metrics["val_accuracy"] ** 1.7 + draw.gauss(0, NOISE)
        for name, row in recorded.items()
    }


def _shuffled(recorded: Mapping[str, Recorded], draw: random.Random) -> dict[str, float]:
    """Accuracies of other designs."""
    names = list(recorded)
    values = [recorded[name].metrics["val_accuracy"] for name in names]
    draw.shuffle(values)
    return dict(zip(names, values, strict=True))


EARLIER: dict[str, Callable[[Mapping[str, Recorded], random.Random], dict[str, float]]] = {
    "other images": _curved,
    "exchanged": _shuffled,
}


def other_world(world: World, seed: int, kind: str) -> World:
    """The same designs with other accuracies."""
    assert isinstance(world.table, Mapping)
    finals = EARLIER[kind](world.table, random.Random(f"{kind} {seed}"))

    def changed(name: str, row: Recorded) -> Recorded:
        factor = finals[name] / max(row.metrics["val_accuracy"], 1e-9)
        curve = tuple(
            {**p, "val_accuracy": min(1.0, max(0.0, p["val_accuracy"] * factor))} for p in row.curve
        )
        return replace(row, curve=curve, metrics={**row.metrics, "val_accuracy": curve[-1]["val_accuracy"]})

    return replace(world, table={name: changed(name, row) for name, row in world.table.items()})


def earlier_run(world: World, seed: int, trials: int = EARLIER_TRIALS) -> EarlierRun:
    """What a finished search is for a later one."""
    found = search(world, "tpe", "none", seed + 10_000, BudgetSpec(trials=trials))
    return EarlierRun(f"runs/earlier{seed}", str(seed), [_design(world, one) for one in found.trials])


def _design(world: World, trial: Any) -> EarlierDesign:
    result = trial.user_attrs["result"]
    curve = [point["val_accuracy"] for point in result["curve"]]
    config = TrialConfig.from_dict(trial.user_attrs["config"]).to_dict()
    return EarlierDesign(config, dict(trial.params), result["status"], curve, result["metrics"])


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """One row for each repetition, sampler and earlier run."""
    return measured("warm", one, args)


def one(table: str, seed: int) -> list[Row]:
    """A repetition: each sampler without an earlier run, and with each kind of one."""
    world = world_of(read_table(table), seed)
    goal = Arm("random").search(world, seed, BudgetSpec(trials=GOAL_TRIALS))
    runs = {kind: earlier_run(other_world(world, seed, kind), seed) for kind in EARLIER}
    rows: list[Row] = []
    budget = BudgetSpec(train_macs=int(SHARE * goal.spent[-1]))
    for sampler in SAMPLERS:
        for kind in ("none", *runs):
            given = [] if kind == "none" else [runs[kind]]
            found = search(world, sampler, "none", seed, budget, earlier=given)
            rows.append(
                {
                    "repetition": seed,
                    "arm": sampler,
                    "earlier": kind,
                    "needed": needed(found, goal),
                    "test_volume": float(found.test_volume[-1]),
                    **{f"volume at {share}": at(found, share * goal.spent[-1]) for share in (0.1, 0.3)},
                }
            )
    return rows


def at(found: Searched, spent: float) -> float:
    """Hypervolume on test images when so much was spent."""
    there = np.flatnonzero(found.spent <= spent)
    return float(found.test_volume[there[-1]]) if len(there) else 0.0


def table(rows: list[Row]) -> list[str]:
    """Geometric means of paired ratios with 95 % bootstrap intervals."""
    lines = header(
        "sampler",
        "earlier run",
        "train_macs to the hypervolume of 100 random designs, warm over cold",
        "did not get there: warm, cold",
        "hypervolume at a tenth of their training, warm minus cold",
        "at three tenths",
        "n",
    )
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = {
            kind: {row["repetition"]: row for row in rows if row["arm"] == arm and row["earlier"] == kind}
            for kind in ("none", *EARLIER)
        }
        for kind in EARLIER:
            pairs = [(mine[kind][seed], cold) for seed, cold in mine["none"].items()]
            ratios = [warm["needed"] / cold["needed"] for warm, cold in pairs if both(warm, cold)]
            missed = [sum(math.isinf(pair[side]["needed"]) for pair in pairs) for side in (0, 1)]
            gains = [
                paired_mean([warm[f"volume at {share}"] - cold[f"volume at {share}"] for warm, cold in pairs])
                for share in (0.1, 0.3)
            ]
            lines.append(
                f"| {arm} | {kind} | {geometric(ratios)} | {missed[0]}, {missed[1]} | {gains[0]} | {gains[1]} "
                f"| {len(pairs)} |"
            )
    return lines


def both(warm: Row, cold: Row) -> bool:
    return math.isfinite(warm["needed"]) and math.isfinite(cold["needed"])


def geometric(ratios: list[float]) -> str:
    """Geometric mean with its bootstrap interval."""
    if not ratios:
        return "-"
    logs = np.log(ratios)
    low, high = _bootstrap(logs)
    return f"{math.exp(logs.mean()):.2f} [{math.exp(low):.2f}, {math.exp(high):.2f}]"


def paired_mean(values: list[float]) -> str:
    low, high = _bootstrap(np.asarray(values))
    return f"{statistics.fmean(values):+.3f} [{low:+.3f}, {high:+.3f}]"


def _bootstrap(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    draws = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
