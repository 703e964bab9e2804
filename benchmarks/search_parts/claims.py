"""Two claims. A: searching distilled students beats searching undistilled ones. B: jointly beats one after the other.

All arms have the same sampler and stopping rule and the same budget of training, and are judged by the test accuracy
of their fronts with seeds that no search has seen. In the first ledger the teacher is given: its user has it anyway;
what it says of the images and the assistant are paid by who asks for them. In the second its training is paid, too:
who cannot pay that trains nothing.
"""

import argparse
import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from harness.results import Row
from harness.spread import header, interval, sd
from naskd.spec.study import BudgetSpec
from naskd.tables import TrainingTable, read_table
from search_parts.arms import ARMS
from search_parts.repeating import measured
from search_parts.replayed import Searched, World, front_of, grid_of, test_volume, world_of
from table_parts.publishing import STUDENT, TAUGHT

TIMES = (1, 3, 10)
"""Budgets, in what distillation costs first: the bank and the assistant."""
SEARCHER = "EHVI, front"
LEDGERS = ("teacher given", "everything charged")
UNDISTILLED = {"kd.kind": "none", "kd.temperature": 4.0, "kd.ce_weight": 1.0}


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """One row for each repetition, ledger and budget."""
    return measured("claims", one, args)


def one(table: str, seed: int) -> list[Row]:
    """A repetition."""
    read = read_table(Path(table))
    world, teacher = world_of(read, seed), int(read.card["networks"]["teacher"]["train_macs"])
    rows: list[Row] = []
    for ledger in LEDGERS:
        paid = teacher if ledger == LEDGERS[1] else 0
        for times in TIMES:
            budget = times * fixed(read)
            found = {
                "joint": [searched(world, seed, budget - paid)],
                "undistilled": [searched(replace(world, space=grid_of(read, UNDISTILLED)), seed, budget)],
                "one after the other": in_turn(read, world, seed, budget - paid),
            }
            made = {arm: [run for run in runs if run is not None] for arm, runs in found.items()}
            volumes = {arm: judged(runs, world) for arm, runs in made.items()}
            trials = {f"trials {arm}": sum(len(run.spent) for run in runs) for arm, runs in made.items()}
            row: Row = {"repetition": seed, "ledger": ledger, "times": times, "budget": budget}
            rows.append({**row, **volumes, **trials})
    return rows


def fixed(table: TrainingTable) -> int:
    """What distillation costs before it teaches anybody: the bank of the teacher, and the assistant."""
    networks, images = table.card["networks"], table.card["images"]["student"]
    return int(
        networks["teacher"]["macs"] * images * table.card["epochs"] + networks["assistant"]["train_macs"]
    )


def searched(world: World, seed: int, budget: float) -> Searched | None:
    """None where nothing can be paid."""
    if budget <= 0:
        return None
    return ARMS[SEARCHER].search(world, seed, BudgetSpec(train_macs=math.ceil(budget)))


def in_turn(table: TrainingTable, world: World, seed: int, budget: float) -> list[Searched | None]:
    """Architectures without a teacher for half of the budget, then ways of being taught for the front of them."""
    first = searched(replace(world, space=grid_of(table, UNDISTILLED)), seed, budget / 2)
    if first is None:
        return []
    chosen = front_of(first)
    students = [point for point in table.points if point["config_id"] in chosen and _is_alone(point)]

    def space(trial: Any) -> Any:
        number = trial.suggest_categorical("student", tuple(range(len(students))))
        taught = {name: trial.suggest_categorical(name, tuple(table.parameters[name])) for name in TAUGHT}
        config = table.config({**{name: students[number][name] for name in STUDENT}, **taught})
        if config is None:
            raise optuna.TrialPruned("not recorded")
        return config

    return [first, searched(replace(world, space=space), seed, budget / 2)]


def _is_alone(point: Mapping[str, Any]) -> bool:
    return all(point[name] == value for name, value in UNDISTILLED.items())


def judged(runs: list[Searched], world: World) -> float:
    """Hypervolume on test images of the front of all runs together, chosen by what the searches saw."""
    return test_volume({name: values for run in runs for name, values in front_of(run).items()}, world)


def table(rows: list[Row]) -> list[str]:
    """Relative differences of hypervolume, paired by repetition, and how many repetitions would show 2 %."""
    lines = header(
        "ledger",
        "budget, times the fixed cost",
        "trials: joint, undistilled, one after the other",
        "A: joint over undistilled, %",
        "B: joint over one after the other, %",
        "repetitions to see 2 % in B",
    )
    for ledger in LEDGERS:
        for times in TIMES:
            mine = [row for row in rows if row["ledger"] == ledger and row["times"] == times]
            trials = [
                f"{statistics.fmean(row[f'trials {arm}'] for row in mine):.0f}"
                for arm in ("joint", "undistilled", "one after the other")
            ]
            cells, needed = [], 0
            for other in ("undistilled", "one after the other"):
                gains = [100 * (row["joint"] / row[other] - 1) for row in mine if row[other] > 0]
                if not gains:
                    cells.append("neither can be paid")
                    continue
                low, high = interval(gains)
                cells.append(f"{statistics.fmean(gains):+.1f} [{low:+.1f}, {high:+.1f}]")
                # Two-sided 5 %, power 80 %: n = ((1.96 + 0.84) sd / effect)^2.
                needed = math.ceil((2.8 * sd(gains) / 2) ** 2) if len(gains) > 1 else 0
            lines.append(f"| {ledger} | {times} | {', '.join(trials)} | {cells[0]} | {cells[1]} | {needed} |")
    return lines
