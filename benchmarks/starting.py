"""Students that start from their teacher's weights against the same from scratch.

    python benchmarks/starting.py --images cifar10-train.zip --table runs/tables/cifar10 --out starting.jsonl

Six students of the recorded space are trained in pairs, with equal seeds: from random weights, and from the teacher's.
Images and teacher are those of a table that ``benchmarks/record_table.py`` records; its folder is only read. Prints
test accuracies and paired differences as Markdown. Started again, it goes on where it was.
"""

import argparse
import dataclasses
import json
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.arguments import parser
from harness.results import say
from harness.spread import difference, header
from record_table import read_rows

STUDENTS = {
    "basic 8": (3398926610, 8, (1, 1, 1), (2, 2, 2)),
    "basic 16, last stride 1": (1042540566, 16, (1, 1, 1), (2, 2, 1)),
    "basic 12, two stages of two blocks": (779955203, 12, (1, 2, 2), (2, 2, 2)),
    "basic 20": (1060754883, 20, (1, 1, 1), (2, 2, 2)),
    "basic 16, one stage of two blocks": (2851411302, 16, (1, 2, 1), (2, 2, 2)),
    "basic 8, the teacher's strides": (4135235850, 8, (1, 1, 1), (1, 2, 2)),
}
"""Seed of a pair, width of the first stage, depths, strides."""
WAYS = {"none": ("none",), "logits": ("logits", 2.0, 0.0), "hint": ("hint",)}
STARTS = ("scratch", "teacher")


def main() -> None:
    args = arguments().parse_args()
    rows = read_rows(args.out)
    done = {key(row) for row in rows}
    tasks = [
        {"student": student, "way": way, "epochs": epochs, "seed": seed, "start": start}
        for way in args.ways
        for epochs in args.epochs
        for seed in range(args.seeds)
        for student in STUDENTS
        for start in STARTS
    ]
    left = [task for task in tasks if key(task) not in done]
    if left:
        trainer = Trainer(args)
        for number, task in enumerate(left, start=1):
            rows.append({**task, "test_accuracy": trainer.train(task)})
            with open(args.out, "a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            say(f"{number}/{len(left)} {rows[-1]}")
    print(*table(rows), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__, json=False)
    given.add_argument("--images", type=Path, required=True, help="zip file of <class>/<name>.jpg")
    given.add_argument("--table", type=Path, required=True, help="folder of the table; its teacher is there")
    given.add_argument(
        "--out", type=Path, required=True, help="file of rows; a folder beside it has the teacher"
    )
    given.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    given.add_argument("--epochs", type=int, nargs="+", default=[16])
    given.add_argument("--seeds", type=int, default=1)
    return given


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("student", "way", "epochs", "seed", "start"))


class Trainer:
    """Trains students on the images of a table.

    Args:
        args: Of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from table_parts import splits
        from table_parts.recording import Recorder

        known = json.loads((args.table / "recording.json").read_text())["arguments"]
        sizes = [known[f"{name}_images"] for name in ("student", "teacher", "val", "test")]
        folder = args.out.with_suffix("")
        shutil.copytree(args.table / "students", folder / "students", dirs_exist_ok=True)
        images = splits.read(args.images, args.table / "images.npz")
        given = argparse.Namespace(
            device="cpu", threads=1, execution=[], teacher_epochs=known["teacher_epochs"]
        )
        self.recorder = Recorder(given, splits.cut(*images, splits.Splits(*sizes)), folder)

    def train(self, task: dict[str, Any]) -> float:
        """Accuracy on the test images."""
        from naskd.spec.seeds import derive_seed
        from naskd.training.evaluation import accuracy, predict

        setting, test = self.recorder.setting, self.recorder.test
        # Of the pair's student, so that both see the images in the same order.
        seed = derive_seed("start", STUDENTS[task["student"]][0], task["seed"])
        run = setting.start(design(task), seed)
        for _ in range(run.total_epochs):
            run.loop.run_epoch()
        return accuracy(predict(run.scheme.deployed, test.images, setting.compute), test.labels)


def design(task: dict[str, Any]) -> Any:
    """Of a training, in the recorded space."""
    from naskd.config import TrialConfig
    from table_parts import space

    _, width, depths, strides = STUDENTS[task["student"]]
    whole = space.three_stages(width, depths)
    stages = tuple(dataclasses.replace(s, stride=n) for s, n in zip(whole.stages, strides, strict=True))
    training = dataclasses.replace(space.TRAINING, epochs=task["epochs"], start=task["start"])
    taught = space.way(*WAYS[task["way"]]).canonical()
    return TrialConfig(dataclasses.replace(whole, stages=stages), taught, training)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Means over students and seeds, and their paired difference, by way and epochs."""
    lines = header("taught by", "epochs", "pairs", *STARTS, "difference [95 %]")
    for way, epochs in dict.fromkeys((row["way"], row["epochs"]) for row in rows):
        found = {
            start: {
                (row["student"], row["seed"]): row["test_accuracy"]
                for row in rows
                if (row["way"], row["epochs"], row["start"]) == (way, epochs, start)
            }
            for start in STARTS
        }
        pairs = [pair for pair in found["scratch"] if pair in found["teacher"]]
        if not pairs:
            continue
        scratch, teacher = ([found[start][pair] for pair in pairs] for start in STARTS)
        means = [f"{statistics.fmean(values):.4f}" for values in (scratch, teacher)]
        cells = [way, str(epochs), str(len(pairs)), *means, difference(teacher, scratch)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
