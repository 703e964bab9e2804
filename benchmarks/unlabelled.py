"""What images that only a teacher speaks of give a student with few labels, for equal epochs and for equal training.

    python benchmarks/unlabelled.py --images cifar10-train.zip --out runs/unlabelled --json unlabelled.json

One student of half a million MACs has few labelled images. A teacher of seven times its MACs was trained on more, which
are none of the student's and none of the unlabelled ones. Arms: the labels alone; the teacher on the labelled images;
and the teacher with some unlabelled images for each labelled one. Each is trained for the same epochs, and as long as
those with most unlabelled images compute. Arms take turns, seed by seed. Accuracies are of test images that nothing
else has seen. Prints Markdown tables. With ``--resume`` it goes on.
"""

import argparse
import dataclasses
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from harness.spread import difference, header, sd

LABELS = "labels alone"


def main() -> None:
    args = arguments().parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    results = Results(args.json, args, machine.facts(), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    done = {(row["arm"], row["epochs"], row["seed"]) for row in rows}
    tasks = [task for task in all_tasks(args) if task not in done]
    if tasks:
        trainer = Trainer(args)
        results.found["teacher"] = trainer.teacher
        results.found["unlabelled"] = trainer.data.n_unlabelled
    for number, task in enumerate(tasks, start=1):
        rows.append(trainer.train(*task))
        results.save()
        say(f"{number}/{len(tasks)} {task} {rows[-1]['test_accuracy']:.4f}")
    print(machine.line(results.found), *report(rows, args), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    given.add_argument("--images", type=Path, required=True, help="zip file of <class>/<name>.jpg")
    given.add_argument(
        "--out", type=Path, required=True, help="folder of unpacked images, teachers and answers"
    )
    given.add_argument("--labelled", type=int, default=500)
    given.add_argument("--val", type=int, default=1000)
    given.add_argument("--test", type=int, default=5000)
    given.add_argument("--teacher-images", type=int, default=10000)
    given.add_argument("--unlabelled", type=int, default=20000)
    given.add_argument(
        "--ratios", type=int, nargs="+", default=[1, 3, 7], help="unlabelled for each labelled one"
    )
    given.add_argument("--resolution", type=int, default=16)
    given.add_argument("--epochs", type=int, default=20)
    given.add_argument("--teacher-epochs", type=int, default=15)
    given.add_argument("--seeds", type=int, default=3)
    given.add_argument("--device", default="cpu")
    given.add_argument("--threads", type=int, default=1)
    given.add_argument("--execution", action="append", default=[], metavar="KEY=VALUE")
    return given


def all_tasks(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Arm, epochs and seed: each for equal epochs, and for as much training as the largest arm takes."""
    for seed in range(args.seeds):
        for ratio in (None, 0, *args.ratios):
            for epochs in dict.fromkeys((args.epochs, longest(ratio, args))):
                yield name_of(ratio), epochs, seed


def longest(ratio: int | None, args: argparse.Namespace) -> int:
    """Epochs of equal ``train_macs``, in which every question to the teacher counts; the labels alone ask none."""
    from naskd.networks.student import design_cost

    student, teacher = (design_cost(a, 3, 10, args.resolution).macs for a in networks())
    step = 3 * student + (0 if ratio is None else teacher)
    return round(args.epochs * (1 + max(args.ratios)) * (3 * student + teacher) / (step * (1 + (ratio or 0))))


def networks() -> tuple[Any, Any]:
    """The student and its teacher."""
    from harness.setting import resnet

    return resnet(1, 12, stem_stride=2), resnet(2, 24, stem_stride=2)


def name_of(ratio: int | None) -> str:
    return LABELS if ratio is None else f"{ratio} unlabelled"


class Trainer:
    """Has the images unpacked and the teacher trained, and trains students."""

    def __init__(self, args: argparse.Namespace) -> None:
        from harness.setting import Setting, study
        from naskd.data.sealed import load_test_split
        from naskd.data.survey import survey_and_load
        from naskd.spec.datasets import DataSpec
        from naskd.spec.design import TrainingSpec

        self.args = args
        unpack(args)
        few = DataSpec(
            "image_folder",
            root="labelled",
            test_root="test",
            unlabelled="pool",
            resolution=args.resolution,
            val_fraction=args.val / (args.val + args.labelled),
        )
        more = dataclasses.replace(few, root="teacher", unlabelled=None, val_fraction=0.1)
        taught, teaching = (
            self._loaded(survey_and_load(d, args.out, args.out / "decoded")) for d in (few, more)
        )
        # A teacher normalises as its own images say, in front of its students too.
        self.data = dataclasses.replace(taught, mean=teaching.mean, std=teaching.std)
        self.training = TrainingSpec(
            batch_size=64, learning_rate=5e-3, weight_decay=0.05, augmentation="flip_translate"
        )
        self.student, teacher = networks()
        teaching_of = dataclasses.replace(self.training, epochs=args.teacher_epochs, learning_rate=3e-3)
        most = args.epochs * (1 + max(args.ratios))
        spec = study(args, teacher, most, teaching_of)
        self.setting = Setting(spec, args.out / "students", args.out / "bank", self.data)
        self.setting.compute.apply_threads()
        self.test = load_test_split(few, args.out, args.out / "decoded").to(self.setting.compute.device)
        self.teacher = self._teacher(Setting(spec, args.out / "teacher-of-more", None, teaching))

    @staticmethod
    def _loaded(found: tuple[Any, Any]) -> Any:
        survey, data = found
        if data is None:
            raise SystemExit("\n".join(survey.all_problems))
        say("\n".join([survey.table(), *survey.warnings]))
        return data

    def _teacher(self, teaching: Any) -> Row:
        """Have the teacher made on its own images and stored as the students'."""
        from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig

        config = TrialConfig(self.student, DistillationSpec((KnowledgeTerm("logits"),)), self.training)
        teaching.make(config)
        (here,), (there,) = (each.context.designs.recipes(config) for each in (self.setting, teaching))
        state, manifest = teaching.context.resources.store.load(there.artifact_id)
        if here.artifact_id not in self.setting.context.resources.store:
            self.setting.context.resources.store.save(here.artifact_id, state, manifest)
        test = self._test(self.setting.teacher())
        return {
            "macs": self.setting.teacher_macs,
            "val_accuracy": manifest["val_accuracy"],
            "test_accuracy": test,
        }

    def train(self, arm: str, epochs: int, seed: int) -> Row:
        from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig

        taught = DistillationSpec()
        if arm != LABELS:
            term = KnowledgeTerm("logits", weight=0.9, temperature=2.0)
            taught = DistillationSpec((term,), ce_weight=0.1, unlabelled=int(arm.split()[0]))
        config = TrialConfig(self.student, taught, dataclasses.replace(self.training, epochs=epochs))
        run = self.setting.start(config, seed)
        run.advance(epochs)
        return {
            "arm": arm,
            "epochs": epochs,
            "seed": seed,
            "macs": run.cost.macs,
            "train_macs": run.train_macs,
            "spent_macs": run.spent_macs,
            "forward_images": run.forward_images,
            "val_accuracy": run.curve[-1]["val_accuracy"],
            "test_accuracy": self._test(run.scheme.deployed),
        }

    def _test(self, network: Any) -> float:
        from naskd.training.evaluation import accuracy, predict

        return accuracy(predict(network, self.test.images, self.setting.compute), self.test.labels)


def unpack(args: argparse.Namespace) -> None:
    """Folders ``labelled``, ``test`` and ``teacher`` of class folders, and ``pool`` of none; no image is in two."""
    from table_parts.splits import unpacked

    parts = {
        "labelled": args.labelled + args.val,
        "test": args.test,
        "teacher": round(args.teacher_images / 0.9),
        "pool": args.unlabelled,
    }
    unpacked(args.images, args.out, parts, flat=("pool",), prefixed=True)


def report(rows: Sequence[Row], args: argparse.Namespace) -> list[str]:
    """Tables in Markdown: for equal epochs, and for equal training."""
    lines = []
    groups = {
        "equal epochs": lambda ratio: args.epochs,
        "equal train_macs": lambda ratio: longest(ratio, args),
    }
    for title, epochs_of in groups.items():
        lines += [
            "",
            f"{title}:",
            "",
            *header("arm", "epochs", "n", "train_macs, 10^9", "test accuracy", "minus labels [95 %]"),
        ]
        base = accuracies(rows, LABELS, epochs_of(None))
        for ratio in (None, 0, *args.ratios):
            found = [
                row for row in rows if row["arm"] == name_of(ratio) and row["epochs"] == epochs_of(ratio)
            ]
            test = accuracies(rows, name_of(ratio), epochs_of(ratio))
            if not test:
                continue
            macs = statistics.fmean(row["train_macs"] for row in found) / 1e9
            gain = "" if ratio is None or len(test) != len(base) else difference(test, base)
            lines.append(
                f"| {name_of(ratio) if ratio != 0 else 'teacher, no unlabelled'} | {epochs_of(ratio)} | {len(test)} | "
                f"{macs:,.0f} | {statistics.fmean(test):.4f} ± {sd(test):.4f} | {gain} |"
            )
    return lines


def accuracies(rows: Sequence[Row], arm: str, epochs: int) -> list[float]:
    """By seed."""
    found = [row for row in rows if (row["arm"], row["epochs"]) == (arm, epochs)]
    return [row["test_accuracy"] for row in sorted(found, key=lambda row: row["seed"])]


if __name__ == "__main__":
    main()
