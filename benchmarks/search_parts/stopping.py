"""Stopping alone: the same designs in the same order, with a rule and without; paused ones may go on in between."""

import argparse
import statistics
from pathlib import Path

import numpy as np

from harness.results import Row
from harness.spread import header
from naskd.spec.pareto import front_mask
from naskd.spec.study import BudgetSpec
from naskd.tables import read_table
from search_parts.arms import Arm
from search_parts.repeating import measured
from search_parts.replayed import AXES, Searched, world_of

RULES: dict[str, tuple[str, dict[str, bool]]] = {
    "`front`": ("front", {}),
    "`front`, `promote = false`": ("front", {"stopping.promote": False}),
    "`mo_asha`, `promote = true`": ("mo_asha", {"stopping.promote": True}),
    "`mo_asha`": ("mo_asha", {}),
}
TRIALS = 200


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """One row for each repetition and rule."""
    return measured("stopping", one, args)


def one(table: str, seed: int) -> list[Row]:
    """A repetition: random designs, which no result changes."""
    read = read_table(table)
    world = world_of(read, seed)
    # Where most designs are drawn, draws are often of one that was drawn before.
    trials = min(TRIALS, len(read.trainings) // 3)
    whole = Arm("random").search(world, seed, BudgetSpec(trials=trials))
    rows: list[Row] = []
    for rule, (name, options) in RULES.items():
        cut = Arm("random", name, options).search(world, seed, BudgetSpec(trials=trials))
        # A draw of a paused design has it go on, where a draw of a complete one is turned away: the draws that follow a
        # row of those may differ.
        assert len(set(cut.designs) - set(whole.designs)) <= max(1, trials // 20)
        rows.append(
            {
                "repetition": seed,
                "rule": rule,
                "times less": whole.spent[-1] / cut.spent[-1],
                "volume lost": 1 - cut.volume[-1] / whole.volume[-1],
                "wrongly stopped": wrongly(whole, cut),
                "stopped": 1 - len(complete(cut)) / len(whole.designs),
            }
        )
    return rows


def wrongly(whole: Searched, cut: Searched) -> float:
    """Share of the front without the rule that the rule has stopped."""
    front = front_mask(whole.values, AXES)
    begun = set(cut.designs)
    there = [name for name, kept in zip(whole.designs, front, strict=True) if kept and name in begun]
    return float(np.mean([name not in complete(cut) for name in there]))


def complete(found: Searched) -> set[str]:
    """Designs that were trained to their end."""
    return {name for name, stopped in zip(found.designs, found.stopped, strict=True) if not stopped}


def table(rows: list[Row]) -> list[str]:
    """Means with the middle 80 % of the repetitions."""
    lines = header(
        "rule", "times less train_macs", "hypervolume lost, %", "front wrongly stopped, %", "stopped, %"
    )
    for rule in RULES:
        cells = []
        for key, factor in (
            ("times less", 1),
            ("volume lost", 100),
            ("wrongly stopped", 100),
            ("stopped", 100),
        ):
            values = [factor * row[key] for row in rows if row["rule"] == rule]
            low, high = np.percentile(values, [10, 90])
            cells.append(f"{statistics.fmean(values):.2f} (10 to 90 %: {low:.2f} to {high:.2f})")
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return lines
