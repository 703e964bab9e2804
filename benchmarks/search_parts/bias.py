"""How much too good a front is: accuracies that a search reports, less what the same designs have on other images.

A front is the best of many noisy values. With ``budget.front_seeds`` its designs are trained again, and their means are
reported. Beside them stands what the record of a search expects of the same designs. Test images tell the truth, moved
by how much easier or harder they are over the whole table; of a seed that the search has not seen, as long as the table
has one. Where it has seen all, luck of seeds is in both numbers, and the difference is that of the images alone.
"""

import argparse
import math
import statistics
from pathlib import Path

from harness.results import Row
from harness.spread import header, interval
from naskd.spec.design import TrialConfig
from naskd.spec.study import BudgetSpec
from naskd.study.expected import expected_accuracies
from naskd.study.stopping import TrialView
from naskd.tables import TrainingTable, read_table
from search_parts.arms import ARMS
from search_parts.repeating import measured
from search_parts.replayed import Searched, World, front_of, world_of

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
            expected = expected_of(found, world)
            true = {name: world.test_accuracy(name) + moved for name in front}
            row: Row = {"repetition": seed, "arm": arm, "seeds": seeds, "designs": len(front)}
            for kind, said in (
                ("", {name: values[0] for name, values in front.items()}),
                ("expected ", expected),
            ):
                over = [said[name] - accuracy for name, accuracy in true.items() if name in said]
                row[f"{kind}points"] = 100 * statistics.fmean(over) if over else math.nan
                row[f"{kind}error"] = (
                    100 * math.sqrt(statistics.fmean(value**2 for value in over)) if over else math.nan
                )
            rows.append({**row, "test_volume": float(found.test_volume[-1])})
    return rows


def expected_of(found: Searched, world: World) -> dict[str, float]:
    """What the record of a search expects of its designs, by their names; empty where too few have finished."""
    trainings = [
        TrialView(
            number,
            TrialConfig.from_dict(trial.user_attrs["config"]),
            0,
            "complete",
            metrics={"val_accuracy": accuracy, "macs": macs},
        )
        for number, ((accuracy, macs), stopped, trial) in enumerate(
            zip(found.values, found.stopped, found.trials, strict=True)
        )
        if not stopped
    ]
    said = expected_accuracies(trainings, ["macs"], world.n_val)
    return {found.designs[number]: mean for number, (mean, _) in said.items()}


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
        "its root mean square",
        "expected less true accuracy, points",
        "its root mean square",
        "designs on the front",
        "hypervolume on test images",
    )
    for arm, seeds in dict.fromkeys((row["arm"], row["seeds"]) for row in rows):
        mine = [row for row in rows if (row["arm"], row["seeds"]) == (arm, seeds)]
        said = [_too_good(mine, kind) for kind in ("", "expected ")]
        lines.append(
            f"| {arm} | {seeds} | {' | '.join(said)} | "
            f"{statistics.fmean(row['designs'] for row in mine):.1f} | "
            f"{statistics.fmean(row['test_volume'] for row in mine):.4f} |"
        )
    return lines


def _too_good(rows: list[Row], kind: str) -> str:
    """Two cells: the mean over searches that say something, with its interval, and the root mean square."""
    told = [row for row in rows if not math.isnan(row[f"{kind}points"])]
    if not told:
        return "too few trainings finished | "
    points = [row[f"{kind}points"] for row in told]
    low, high = interval(points)
    error = statistics.fmean(row[f"{kind}error"] for row in told)
    return f"{statistics.fmean(points):+.2f} [{low:+.2f}, {high:+.2f}] | {error:.2f}"
