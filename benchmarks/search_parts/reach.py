"""How much training each arm needs to reach what NSGA-II has after 200 full trials."""

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.results import Row
from harness.spread import header
from naskd.spec.study import BudgetSpec
from naskd.tables import read_table
from search_parts.arms import ARMS, Arm
from search_parts.curves import anytime
from search_parts.outside import ForeignArm
from search_parts.repeating import measured, median_interval
from search_parts.replayed import Searched, world_of

FULL_TRIALS = 200


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """One row for each repetition and arm."""
    return measured("reach", one, args, args.arms)


def one(table: str, seed: int, arms: Mapping[str, Arm | ForeignArm]) -> list[Row]:
    """A repetition: all arms with the budget that NSGA-II and TPE have used."""
    world = world_of(read_table(table), seed)
    goals = {
        name: ARMS[name].search(world, seed, BudgetSpec(trials=FULL_TRIALS)) for name in ("NSGA-II", "TPE")
    }
    most = max(goal.spent[-1] for goal in goals.values())
    rows: list[Row] = []
    for name, arm in arms.items():
        found = arm.search(world, seed, BudgetSpec(train_macs=int(most)))
        row: Row = {"repetition": seed, "arm": name, "seconds": found.seconds}
        whole = {name for name, stopped in zip(found.designs, found.stopped, strict=True) if not stopped}
        row |= {"designs": len(set(found.designs)), "complete": len(whole)}
        row |= {"volume": float(found.volume[-1]), "test_volume": float(found.test_volume[-1])}
        for goal, reached in goals.items():
            row[f"share of {goal}"] = needed(found, reached) / reached.spent[-1]
        row["curve"] = anytime(found, goals["NSGA-II"])
        rows.append(row)
    return rows


def needed(found: Searched, goal: Searched) -> float:
    """Multiply-accumulates until the goal's hypervolume on test images was reached, first; infinite where it was not.

    On validation images whoever trains more designs has the luckier seeds, which is worth nothing to its user.
    """
    there = np.flatnonzero(found.test_volume >= goal.test_volume[-1] - 1e-12)
    return float(found.spent[there[0]]) if len(there) else float("inf")


def table(rows: list[Row]) -> list[str]:
    """Medians over repetitions with 95 % intervals."""
    lines = header(
        "arm",
        "train_macs to NSGA-II's hypervolume on test images, share of NSGA-II's",
        "the same against TPE",
        "did not get there",
        "hypervolume at the end, as searched",
        "on test images",
        "designs trained, of them to their end",
        "seconds of a search",
    )
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        missed = sum(np.isinf(row["share of NSGA-II"]) for row in mine)
        cells = [median_interval([row[f"share of {goal}"] for row in mine]) for goal in ("NSGA-II", "TPE")]
        rest = [statistics.median(row[key] for row in mine) for key in ("volume", "test_volume")]
        lines.append(
            f"| {arm} | {' | '.join(cells)} | {missed} of {len(mine)} | {rest[0]:.4f} | {rest[1]:.4f} | "
            f"{statistics.median(row['designs'] for row in mine):.0f}, "
            f"{statistics.median(row['complete'] for row in mine):.0f} | "
            f"{statistics.median(row['seconds'] for row in mine):.1f} |"
        )
    return lines
