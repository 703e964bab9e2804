"""How much too good a front is: accuracies that a search reports, less what the same designs have on other images.

A front is the best of many noisy values. With ``budget.front_seeds`` its designs are trained again, and their means are
reported. Test images tell the truth, moved by how much easier or harder they are over the whole table; of a seed that
the search has not seen, as long as the table has one. Where it has seen all, luck of seeds is in both numbers, and the
difference is that of the images alone.
"""

import argparse
import statistics
from pathlib import Path

from harness.results import Row
from harness.spread import header, interval
from naskd.spec.study import BudgetSpec
from naskd.tables import TrainingTable, read_table
from search_parts.arms import ARMS
from search_parts.repeating import measured
from search_parts.replayed import front_of, world_of

SEARCHERS = ("random", "TPE", "EHVI, front")
TRIALS = 100


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """One row for each repetition, arm and number of seeds."""
    return measured("bias", one, args)


def one(table: str, seed: int) -> list[Row]:
    """A repetition."""
    read = read_table(Path(table))
    world, moved = world_of(read, seed), offset(read)
    rows: list[Row] = []
    for seeds in range(1, 1 + min(map(len, read.trainings.values()))):
        for arm in SEARCHERS:
            found = ARMS[arm].search(world, seed, BudgetSpec(trials=TRIALS, front_seeds=seeds))
            front = front_of(found)
            over = [values[0] - world.test_accuracy(name) - moved for name, values in front.items()]
            row: Row = {"repetition": seed, "arm": arm, "seeds": seeds, "designs": len(front)}
            rows.append(
                {**row, "points": 100 * statistics.fmean(over), "test_volume": float(found.test_volume[-1])}
            )
    return rows


def offset(table: TrainingTable) -> float:
    """By how much accuracies on validation images are above those on test images, over all trainings."""
    rows = [row for rows in table.trainings.values() for row in rows]
    return statistics.fmean(row.val_accuracy[-1] - row.test_accuracy[-1] for row in rows)


def table(rows: list[Row]) -> list[str]:
    """Means over repetitions with 95 % intervals."""
    lines = header(
        "arm",
        "seeds of each design of the front",
        "reported less true accuracy, points",
        "designs on the front",
        "hypervolume on test images",
    )
    for arm, seeds in dict.fromkeys((row["arm"], row["seeds"]) for row in rows):
        mine = [row for row in rows if (row["arm"], row["seeds"]) == (arm, seeds)]
        points = [row["points"] for row in mine]
        low, high = interval(points)
        lines.append(
            f"| {arm} | {seeds} | {statistics.fmean(points):+.2f} [{low:+.2f}, {high:+.2f}] | "
            f"{statistics.fmean(row['designs'] for row in mine):.1f} | "
            f"{statistics.fmean(row['test_volume'] for row in mine):.4f} |"
        )
    return lines
