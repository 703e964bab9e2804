"""What learning without forgetting keeps of earlier tasks, beside fine-tuning and learning all classes at once.

    python benchmarks/tasks.py --json tasks.json

Digits, and the smaller of their two students. Their ten classes come in tasks, each with as many epochs on its own
images as all classes have at once, so that all trainings show as many images. Each seed has its own order of classes.
Arms take turns, seed by seed. The validation images judge, by which nothing is chosen: each task's among its own
classes, and among those of all tasks so far. Prints Markdown tables. With ``--resume`` it goes on.
"""

import argparse
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from harness.spread import difference, header, sd

JOINT, HEADS = "all at once", ("multi", "single")
SHOWN = {
    "average_accuracy": "own classes",
    "forgetting": "forgotten",
    "average_accuracy_seen": "all so far",
    "forgetting_seen": "forgotten",
}
"""Measures by name, and their columns."""


def main() -> None:
    args = arguments().parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    results = Results(args.json, args, machine.facts(), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    done = {(row["arm"], row["heads"], row["tasks"], row["seed"]) for row in rows}
    tasks = [task for task in all_trainings(args) if task not in done]
    trainer = Trainer(args) if tasks else None
    for number, task in enumerate(tasks, start=1):
        assert trainer is not None
        rows.append(trainer.train(*task))
        results.save()
        say(f"{number}/{len(tasks)} {task} {rows[-1]['val_accuracy']:.4f} {rows[-1]['forgetting']:+.4f}")
    print(machine.line(results.found), *report(rows, args), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    given.add_argument("--tasks", type=int, nargs="+", default=[2, 5])
    given.add_argument("--weights", type=float, nargs="+", default=[0.0, 1.0, 4.0])
    given.add_argument("--epochs", type=int, default=20, help="of a task")
    given.add_argument("--seeds", type=int, default=5)
    given.add_argument("--threads", type=int, default=1)
    given.add_argument("--runs", type=Path, default=Path("runs"), help="where decoded images are kept")
    return given


def all_trainings(args: argparse.Namespace) -> Iterator[tuple[str, str, int, int]]:
    """Arm, heads, tasks and seed; all classes at once are one task."""
    for seed in range(args.seeds):
        yield JOINT, "multi", 1, seed
        for tasks in args.tasks:
            for heads in HEADS:
                for weight in args.weights:
                    yield name_of(weight), heads, tasks, seed


def name_of(weight: float) -> str:
    return f"lwf, weight {weight:g}" if weight else "fine-tuning"


class Trainer:
    """Has the images, and trains students."""

    def __init__(self, args: argparse.Namespace) -> None:
        from harness.setting import ROOT, Setting
        from naskd.spec.design import TrainingSpec
        from naskd.spec.parse import parse_study
        from schemes import two_stages

        self.epochs = args.epochs
        settings = [f"execution.threads={args.threads}", "execution.device=cpu"]
        self.setting = Setting(parse_study(ROOT / "studies/digits.toml", settings), args.runs)
        self.setting.compute.apply_threads()
        self.student = two_stages(4)
        self.training = TrainingSpec(batch_size=64, learning_rate=0.01)

    def train(self, arm: str, heads: str, tasks: int, seed: int) -> Row:
        from naskd.spec.design import DistillationSpec, TrialConfig

        weight = 0.0 if arm in (JOINT, name_of(0)) else float(arm.split()[-1])
        options: dict[str, Any] = {"tasks": tasks, "heads": heads, "weight": weight, "order": seed + 1}
        taught = DistillationSpec(scheme="lwf", scheme_options=tuple(sorted(options.items()))).canonical()
        config = TrialConfig(self.student, taught, replace(self.training, epochs=self.epochs * tasks))
        run = self.setting.start(config, seed)
        run.advance(run.total_epochs)
        return {
            "arm": arm,
            "heads": heads,
            "tasks": tasks,
            "seed": seed,
            "macs": run.cost.macs,
            "train_macs": run.train_macs,
            "val_accuracy": run.curve[-1]["val_accuracy"],
            **run.measures,
        }


def report(rows: Sequence[Row], args: argparse.Namespace) -> list[str]:
    """In Markdown: means over the tasks, what fine-tuning has less, and the accuracy of each task."""
    lines = ["", *header("tasks", "heads", "arm", "n", *SHOWN.values())]
    cases = [(1, "multi", JOINT)]
    cases += [(t, heads, name_of(w)) for t in args.tasks for heads in HEADS for w in args.weights]
    for tasks, heads, arm in cases:
        found = {name: by_seed(rows, tasks, heads, arm, name) for name in SHOWN}
        n = len(found["forgetting"])
        if n:
            cells = [f"{statistics.fmean(values):.4f} ± {sd(values):.4f}" for values in found.values()]
            lines.append(f"| {tasks} | {heads if tasks > 1 else ''} | {arm} | {n} | {' | '.join(cells)} |")
    lines += ["", "Minus fine-tuning, paired by seed [95 %]:", ""]
    lines += header("tasks", "heads", "arm", *SHOWN.values())
    for tasks, heads, arm in cases:
        pairs = [
            (by_seed(rows, tasks, heads, arm, name), by_seed(rows, tasks, heads, name_of(0), name))
            for name in SHOWN
        ]
        if arm.startswith("lwf") and all(len(own) == len(base) > 0 for own, base in pairs):
            lines.append(f"| {tasks} | {heads} | {arm} | {' | '.join(difference(*pair) for pair in pairs)} |")
    most = max(args.tasks)
    lines += ["", "Accuracy of each task among its own classes:", ""]
    lines += header("tasks", "heads", "arm", *(str(task) for task in range(1, most + 1)))
    for tasks, heads, arm in cases[1:]:
        each = [by_seed(rows, tasks, heads, arm, f"accuracy_task_{task}") for task in range(1, most + 1)]
        if each[0]:
            cells = [f"{statistics.fmean(values):.3f}" if values else "" for values in each]
            lines.append(f"| {tasks} | {heads} | {arm} | {' | '.join(cells)} |")
    return lines


def by_seed(rows: Sequence[Row], tasks: int, heads: str, arm: str, name: str) -> list[float]:
    found = [row for row in rows if (row["tasks"], row["heads"], row["arm"]) == (tasks, heads, arm)]
    return [row[name] for row in sorted(found, key=lambda row: row["seed"]) if name in row]


if __name__ == "__main__":
    main()
