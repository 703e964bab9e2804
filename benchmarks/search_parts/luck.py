"""How many seeds, and validation images, a front needs until it is no longer too good: by the noise that a table shows.

Where two seeds of a design were recorded, what their accuracies share is the design's and that of the choice of images,
and the rest is luck of the seed. With both variances fronts are drawn: of so many random designs, trained with one seed
each, those on the front with more, until every design on it has as many as asked for.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.results import Row
from harness.spread import header, interval
from naskd.spec.pareto import front_mask
from naskd.tables import TrainingTable, read_table
from search_parts.repeating import measured
from search_parts.replayed import AXES
from table_parts.publishing import STUDENT, TAUGHT

DESIGNS = 100
SEEDS = (1, 2, 3, 5, 8)
IMAGES = (1, 2, 5)
"""As many times the validation images that the table has."""
DRAWN = 20
"""Fronts a repetition."""

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Luck:
    """Of accuracies, as fractions.

    Args:
        true: What each design is worth, ``(N,)``: the additive effects of student and teaching, and as much of the
            rest as two seeds agree on.
        macs: ``(N,)``.
        seed: Standard deviation between seeds of a design on validation images.
        images: Standard deviation of what the choice of validation images does to a design, whatever its seed.
        n_val: Validation images.
    """

    true: Array
    macs: Array
    seed: float
    images: float
    n_val: int


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    """One row for each repetition, number of seeds and number of images."""
    return measured("luck", one, args)


def one(table: str, seed: int) -> list[Row]:
    """A repetition."""
    luck, rng = luck_of(read_table(Path(table))), np.random.default_rng(seed)
    rows: list[Row] = []
    for times in IMAGES:
        for seeds in SEEDS:
            found = [too_good(luck, seeds, times, rng) for _ in range(DRAWN)]
            row: Row = {"repetition": seed, "seeds": seeds, "images": times * luck.n_val}
            row |= {"points": 100 * statistics.fmean(points for points, _ in found)}
            row |= {"trainings": statistics.fmean(trained for _, trained in found)}
            rows.append(row | {"seed sd": 100 * luck.seed, "images sd": 100 * luck.images})
    return rows


def luck_of(table: TrainingTable) -> Luck:
    """Of a table in which some designs have two seeds.

    Raises:
        SystemExit: None has.
    """
    values = {point["config_id"]: [point[name] for name in (*STUDENT, *TAUGHT)] for point in table.points}
    names = [name for name in table.trainings if name in values]
    twice = [name for name in names if len(table.trainings[name]) > 1]
    if len(twice) < 10:
        raise SystemExit(f"luck: {len(twice)} designs have two seeds; wanted at least 10")
    # What is worth the same in both splits: the difference is luck of one of them.
    val, test = (
        np.array([[getattr(row, which)[-1] for row in table.trainings[name][:2]] for name in twice])
        for which in ("val_accuracy", "test_accuracy")
    )
    seed = float(np.sqrt(np.mean((val[:, 0] - val[:, 1]) ** 2) / 2))
    apart = val - test
    shared = float(np.cov(apart[:, 0], apart[:, 1])[0, 1])
    # Images of both splits take part in it, the more the fewer they are.
    n_val, n_test = (int(table.card["images"][which]) for which in ("val", "test"))
    images = float(np.sqrt(max(0.0, shared) * n_test / (n_val + n_test)))
    measured_ = np.array([table.trainings[name][0].test_accuracy[-1] for name in names])
    additive = _additive(np.array(values_of(names, values), dtype=object), measured_)
    rest = measured_ - additive
    place = {name: number for number, name in enumerate(names)}
    again = test[:, 1] - additive[[place[name] for name in twice]]
    first = rest[[place[name] for name in twice]]
    agreed = float(np.clip(np.cov(first, again)[0, 1] / np.var(rest, ddof=1), 0.0, 1.0))
    macs = np.array([table.trainings[name][0].cost.macs for name in names], dtype=np.float64)
    return Luck(additive + agreed * rest, macs, seed, images, n_val)


def values_of(names: Sequence[str], values: dict[str, list[Any]]) -> list[list[Any]]:
    """Of the designs, the student as one value and the teaching as another."""
    n = len(STUDENT)
    return [[str(values[name][:n]), str(values[name][n:])] for name in names]


def _additive(columns: Any, accuracies: Array) -> Array:
    """Least squares with one effect a student and one a way of being taught."""
    shown = [column[:, None] == np.unique(column)[None] for column in columns.astype(str).T]
    design = np.column_stack([*shown]).astype(np.float64)
    effects, *_ = np.linalg.lstsq(design, accuracies, rcond=None)
    found: Array = design @ effects
    return found


def too_good(luck: Luck, seeds: int, times: int, rng: np.random.Generator) -> tuple[float, int]:
    """Mean of reported less true accuracy over the designs of a front, and the trainings that it took."""
    chosen = rng.choice(len(luck.true), min(DESIGNS, len(luck.true)), replace=False)
    true, macs = luck.true[chosen], luck.macs[chosen]
    moved = true + rng.normal(0.0, luck.images / np.sqrt(times), len(true))
    drawn = moved[:, None] + rng.normal(0.0, luck.seed, (len(true), seeds))
    n = np.ones(len(true), dtype=int)
    while True:
        reported = np.array([row[:k].mean() for row, k in zip(drawn, n, strict=True)])
        front = front_mask(list(zip(reported, macs, strict=True)), AXES)
        missing = front & (n < seeds)
        if not missing.any():
            return float((reported - true)[front].mean()), int(n.sum())
        n[missing] = seeds


def table(rows: list[Row]) -> list[str]:
    """Means over repetitions with 95 % intervals."""
    lines = header(
        "validation images",
        "seeds of each design of the front",
        "reported less true accuracy, points",
        f"trainings of {DESIGNS} designs",
    )
    for images, seeds in dict.fromkeys((row["images"], row["seeds"]) for row in rows):
        mine = [row for row in rows if (row["images"], row["seeds"]) == (images, seeds)]
        points = [row["points"] for row in mine]
        low, high = interval(points)
        trainings = statistics.fmean(row["trainings"] for row in mine)
        lines.append(
            f"| {images:,} | {seeds} | {statistics.fmean(points):+.2f} [{low:+.2f}, {high:+.2f}] | {trainings:.0f} |"
        )
    last = rows[-1]
    return [
        *lines,
        "",
        f"Standard deviations that the table shows: {last['seed sd']:.2f} points between seeds of a design, "
        f"{last['images sd']:.2f} by the choice of its validation images.",
    ]
