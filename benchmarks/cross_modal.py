"""What a teacher of colour images gives a student that sees their edges alone: with no label, with labels, with both.

    python benchmarks/cross_modal.py --images cifar10-train.zip --out runs/cross --json cross_modal.json

One student of half a million MACs sees a second modality of the images, ``--modality``. Its teacher has eight times
its MACs, sees the images themselves, and was trained on the same ones with their labels. Arms: the labels alone; the
teacher alone, without any label; and both. All have equal epochs, and take turns, seed by seed. Accuracies are of the
second modality of test images that nothing else has seen. Prints a Markdown table. With ``--resume`` it goes on.
"""

import argparse
import dataclasses
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from harness.spread import difference, header, sd

LABELS, TEACHER, BOTH = "labels alone", "teacher alone, no labels", "both"
ARMS = (LABELS, TEACHER, BOTH)


def main() -> None:
    args = arguments().parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    results = Results(args.json, args, machine.facts(), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    done = {(row["arm"], row["seed"]) for row in rows}
    tasks = [(arm, seed) for seed in range(args.seeds) for arm in ARMS if (arm, seed) not in done]
    if tasks:
        trainer = Trainer(args)
        results.found["teacher"] = trainer.teacher
    for number, task in enumerate(tasks, start=1):
        rows.append(trainer.train(*task))
        results.save()
        say(f"{number}/{len(tasks)} {task} {rows[-1]['test_accuracy']:.4f}")
    print(machine.line(results.found), *report(results.found), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    given.add_argument("--images", type=Path, required=True, help="zip file of <class>/<name>.jpg")
    given.add_argument(
        "--out", type=Path, required=True, help="folder of unpacked images, teachers and answers"
    )
    given.add_argument("--modality", default="edges", help="a registered one that is made of the images")
    given.add_argument("--train", type=int, default=5000)
    given.add_argument("--val", type=int, default=1000)
    given.add_argument("--test", type=int, default=4000)
    given.add_argument("--resolution", type=int, default=16)
    given.add_argument("--epochs", type=int, default=12)
    given.add_argument("--teacher-epochs", type=int, default=12)
    given.add_argument("--seeds", type=int, default=5)
    given.add_argument("--device", default="cpu")
    given.add_argument("--threads", type=int, default=1)
    given.add_argument("--execution", action="append", default=[], metavar="KEY=VALUE")
    return given


class Trainer:
    """Has the images unpacked and the teacher trained, and trains students."""

    def __init__(self, args: argparse.Namespace) -> None:
        from harness.setting import open_setting, resnet, study
        from naskd.data.sealed import load_test_splits
        from naskd.data.survey import survey_and_load
        from naskd.spec.datasets import DataSpec
        from naskd.spec.design import TrainingSpec
        from naskd.spec.modalities import ModalitySpec
        from table_parts.splits import unpacked

        # Folders of class folders; no image is in both.
        unpacked(args.images, args.out, {"train": args.train + args.val, "test": args.test})
        spec = DataSpec(
            "image_folder",
            root="train",
            test_root="test",
            resolution=args.resolution,
            val_fraction=args.val / (args.val + args.train),
            modality=ModalitySpec(args.modality),
        )
        survey, data = survey_and_load(spec, args.out, args.out / "decoded")
        if data is None:
            raise SystemExit("\n".join(survey.all_problems))
        say("\n".join([survey.table(), *survey.warnings]))
        self.training = TrainingSpec(
            epochs=args.epochs,
            batch_size=64,
            learning_rate=5e-3,
            weight_decay=0.05,
            augmentation="flip_translate",
        )
        teaching = dataclasses.replace(self.training, epochs=args.teacher_epochs, learning_rate=3e-3)
        self.student, teacher = resnet(1, 12, stem_stride=2), resnet(2, 24, stem_stride=2)
        given = study(args, teacher, args.epochs, teaching)
        without = open_setting(given, data, args.out / "students", args.out / "bank")
        labelled = dataclasses.replace(data, labels_teach=True)
        self.settings = {TEACHER: without}
        for arm in (LABELS, BOTH):
            self.settings[arm] = open_setting(given, labelled, args.out / "students", args.out / "bank")
        self.test, first = (
            images.to(without.compute.device)
            for images in load_test_splits(spec, args.out, args.out / "decoded")
        )
        self.teacher = {
            "macs": without.teacher_macs,
            "val_accuracy": without.teacher_accuracy,
            "test_accuracy": self._accuracy(without.teacher(), first),
        }

    def train(self, arm: str, seed: int) -> Row:
        from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig

        share = {LABELS: 1.0, TEACHER: 0.0, BOTH: 0.1}[arm]
        terms = () if arm == LABELS else (KnowledgeTerm("logits", weight=1 - share, temperature=2.0),)
        taught = DistillationSpec(terms, ce_weight=share)
        run = self.settings[arm].start(TrialConfig(self.student, taught, self.training), seed)
        run.advance(self.training.epochs)
        return {
            "arm": arm,
            "seed": seed,
            "macs": run.cost.macs,
            "train_macs": run.train_macs,
            "forward_images": run.forward_images,
            "val_accuracy": run.curve[-1]["val_accuracy"],
            "test_accuracy": self._accuracy(run.scheme.deployed, self.test),
        }

    def _accuracy(self, network: Any, test: Any) -> float:
        from naskd.training.evaluation import accuracy, predict

        return accuracy(predict(network, test.images, self.settings[TEACHER].compute), test.labels)


def report(found: Row) -> list[str]:
    """A table in Markdown."""
    rows, teacher = found["rows"], found["teacher"]
    base = accuracies(rows, LABELS)
    lines = [
        f"teacher, which sees the images themselves: {teacher['macs']:,} MACs, test accuracy "
        f"{teacher['test_accuracy']:.4f}",
        "",
        *header("arm", "n", "train_macs, 10^9", "test accuracy", "minus labels alone [95 %]"),
    ]
    for arm in ARMS:
        test = accuracies(rows, arm)
        if not test:
            continue
        macs = statistics.fmean(row["train_macs"] for row in rows if row["arm"] == arm) / 1e9
        gain = "" if arm == LABELS or len(test) != len(base) else difference(test, base)
        lines.append(
            f"| {arm} | {len(test)} | {macs:,.0f} | {statistics.fmean(test):.4f} ± {sd(test):.4f} | {gain} |"
        )
    return lines


def accuracies(rows: Sequence[Row], arm: str) -> list[float]:
    """By seed."""
    return [row["test_accuracy"] for row in sorted(rows, key=lambda row: row["seed"]) if row["arm"] == arm]


if __name__ == "__main__":
    main()
