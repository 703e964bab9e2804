"""From recorded rows to a table, and what the table says by itself, before anything is searched."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from harness.spread import header
from naskd.spec.design import content_id
from naskd.tables import Training, TrainingTable, read_table, write_table
from table_parts import space

STUDENT = ("block", "width", "growth", "stage2.depth", "stage3.depth", "stage3.stride")
TAUGHT = ("kd.kind", "kd.temperature", "kd.ce_weight")


def publish(folder: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Write the table of all students whose every way was recorded, and say in Markdown what it shows."""
    good = [row for row in rows if "error" not in row]
    replicates = whole_replicates(good)
    if not replicates:
        return [f"No table yet: it begins with the first student whose {n_ways()} ways were all recorded."]
    students = {student for student, _ in replicates}
    kept = [row for row in good if (_student(row["values"]), row["replicate"]) in replicates]
    write_table(folder / "table", card(folder, kept), grid(students), map(training, kept))
    return report(read_table(folder / "table"), {row["config_id"]: row["values"] for row in kept})


def whole_replicates(rows: Sequence[Mapping[str, Any]]) -> set[tuple[tuple[Any, ...], int]]:
    """Students with a seed, all of whose ways were recorded."""
    ways = defaultdict(set)
    for row in rows:
        ways[_student(row["values"]), row["replicate"]].add(row["config_id"])
    return {which for which, found in ways.items() if len(found) == n_ways()}


def n_ways() -> int:
    """Ways in which each student is taught."""
    return len(space.KINDS) - 1 + len(space.TEMPERATURES) * len(space.CE_WEIGHTS)


def card(folder: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a stranger must know of the table."""
    recording = json.loads((folder / "recording.json").read_text())
    given = recording["arguments"]
    students = {_student(row["values"]) for row in rows}
    choices = {name: sorted({s[n] for s in students}) for n, name in enumerate(STUDENT)}
    return {
        "what": "students of a grid, each taught in every way of a list, every training really done",
        "parameters": {
            **choices,
            "kd.kind": list(space.KINDS),
            "kd.temperature": list(space.TEMPERATURES),
            "kd.ce_weight": list(space.CE_WEIGHTS),
        },
        "students": len(students),
        "ways": n_ways(),
        "trainings": len(rows),
        "epochs": space.EPOCHS,
        "training": space.joint(space.Point(next(space.points(0)))).to_dict()["training"],
        "images": {
            "source": given["name"],
            "student": given["student_images"],
            "teacher": given["teacher_images"],
            "val": given["val_images"],
            "test": given["test_images"],
            "channels": 3,
            "resolution": 32,
            "classes": recording["classes"],
        },
        "networks": recording["networks"],
        "recorded": {
            name: recording[name] for name in ("command", "date", "cpus", "device_name", "versions")
        },
    }


def grid(students: set[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """All points of recorded students; those that differ in what is switched off lead to one design."""
    found = []
    for student in sorted(students):
        for taught in product(space.KINDS, space.TEMPERATURES, space.CE_WEIGHTS):
            values = {**dict(zip(STUDENT, student, strict=True)), **dict(zip(TAUGHT, taught, strict=True))}
            found.append({**values, "config_id": space.joint(space.Point(values)).config_id})
    return found


def training(row: Mapping[str, Any]) -> Training:
    return Training.from_row(space.joint(space.Point(row["values"])), row)


def _student(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(values[name] for name in STUDENT)


def way_name(values: Mapping[str, Any]) -> str:
    """``logits T=4 ce=0``."""
    kind = str(values["kd.kind"])
    return (
        kind if kind != "logits" else f"logits T={values['kd.temperature']:g} ce={values['kd.ce_weight']:g}"
    )


def report(table: TrainingTable, values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What each way is worth, and how well early epochs and undistilled students tell."""
    test: dict[str, dict[tuple[Any, ...], float]] = defaultdict(dict)
    for name, given in values.items():
        test[way_name(given)][_student(given)] = table.test_accuracy(name)
    alone = test["none"]
    lines = [
        f"{len(alone)} students, {sum(map(len, table.trainings.values())):,} trainings; "
        f"table {content_id(sorted(table.trainings))}",
        "",
        *header(
            "way",
            "median gain over none, points",
            "from, to",
            "best for, % of students",
            "Kendall tau to none",
        ),
    ]
    best = [max(test, key=lambda way: test[way].get(student, 0.0)) for student in alone]
    for way, found in test.items():
        gains = [100 * (found[student] - alone[student]) for student in alone]
        low, high = np.percentile(gains, [10, 90])
        tau = kendalltau([found[s] for s in alone], [alone[s] for s in alone]).statistic
        share = 100 * sum(one == way for one in best) / len(best)
        lines.append(
            f"| {way} | {median(gains):+.1f} | {low:+.1f} to {high:+.1f} | {share:.0f} | {tau:.2f} |"
        )
    return [*lines, "", *_by_block(test), "", *_epochs(table), "", *_seeds(table)]


def _by_block(test: Mapping[str, Mapping[tuple[Any, ...], float]]) -> list[str]:
    blocks = sorted({student[0] for student in test["none"]})
    lines = header("way", *blocks)
    for way, found in test.items():
        means = []
        for block in blocks:
            mine = [s for s in test["none"] if s[0] == block]
            means.append(f"{100 * fmean(found[s] - test['none'][s] for s in mine):+.1f}")
        lines.append(f"| {way} | {' | '.join(means)} |")
    return lines


def _epochs(table: TrainingTable) -> list[str]:
    """How well accuracy after an epoch ranks final test accuracy."""
    rows = [rows[0] for rows in table.trainings.values()]
    final = [row.test_accuracy[-1] for row in rows]
    lines = header("epoch", "Spearman of validation accuracy to final test accuracy")
    n = len(rows[0].val_accuracy)
    for epoch in sorted({1, 2, 3, n // 4, n // 2, 3 * n // 4, n} & set(range(1, n + 1))):
        rho = spearmanr([row.val_accuracy[epoch - 1] for row in rows], final).statistic
        lines.append(f"| {epoch} | {rho:.2f} |")
    return lines


def _seeds(table: TrainingTable) -> list[str]:
    pairs = [rows for rows in table.trainings.values() if len(rows) > 1]
    if not pairs:
        return ["One seed only: no seed noise."]
    spread = [np.std([r.test_accuracy[-1] for r in rows], ddof=1) for rows in pairs]
    noise = 100 * float(np.sqrt(np.mean(np.square(spread))))
    return [f"Seed noise: {noise:.2f} points of test accuracy (sd, {len(pairs)} designs)."]
