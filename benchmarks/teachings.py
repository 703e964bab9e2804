"""Random draws of ways of being taught: what a preset offers against any subset of four kinds, and against labels.

    python benchmarks/teachings.py --images cifar10-train.zip --out runs/teachings --teacher-images 25000

Three fixed students, one of each block family, are trained in every way that is drawn: by each preset, and by what
spaces offered before there were presets (arm ``subset``): each of four kinds or not, at weights from 0.1 to 10, beside
the labels at weight 1. Arms take turns, so that what is there at any moment compares. Prints Markdown tables: mean and
best accuracy on test images, and what each choice of the presets was worth. Started again, it goes on.

    python benchmarks/teachings.py --table docs/data/tables/cifar10

trains nothing: of the ways that a table recorded, it compares those that each arm offers. A table has neither weights
between its values nor two kinds at once.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, say
from harness.spread import header, sd

SUBSET = "subset"
ALONE = "labels alone"
BLOCKS = ("basic", "inverted_residual", "depthwise_separable")


def main() -> None:
    args = arguments().parse_args()
    if args.table is not None:
        from table_parts import offered

        print("\n".join(offered.report(args.table, args.presets)))
        return
    if args.images is None or args.out is None:
        raise SystemExit("--images and --out say what to train on and where to keep it; or give a --table")
    args.out.mkdir(parents=True, exist_ok=True)
    rows = args.out / "draws.jsonl"
    if not args.publish:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
        record(args, rows)
    print("\n".join(report([json.loads(line) for line in rows.read_text().splitlines() if line.strip()])))


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__, json=False)
    given.add_argument("--images", type=Path, help="zip file of <class>/<name>.jpg")
    given.add_argument("--out", type=Path, help="folder of the measurements")
    given.add_argument("--table", type=Path, help="folder of a recorded table")
    given.add_argument("--student-images", type=int, default=2500)
    given.add_argument("--teacher-images", type=int, default=25000, help="the students' among them")
    given.add_argument("--val-images", type=int, default=2000)
    given.add_argument("--test-images", type=int, default=3000)
    given.add_argument("--halved", action="store_true", help="images of half the side, which take a quarter")
    given.add_argument("--teacher-epochs", type=int, default=15)
    given.add_argument("--epochs", type=int, default=16, help="of a student")
    given.add_argument("--draws", type=int, default=30, help="of each arm, for each student")
    given.add_argument("--presets", nargs="+", default=["more-images-1"])
    given.add_argument("--alone", type=int, default=5, help="seeds of each student with the labels alone")
    given.add_argument("--width", type=int, default=12, help="of the students' first stage")
    given.add_argument("--device", default="cpu")
    given.add_argument("--threads", type=int, default=1)
    given.add_argument("--execution", action="append", default=[], metavar="KEY=VALUE")
    given.add_argument("--publish", action="store_true", help="measure nothing")
    return given


def record(args: argparse.Namespace, rows: Path) -> None:
    free = ("draws", "presets", "alone", "publish", "threads", "images")
    settings = argparse.Namespace(**{name: value for name, value in vars(args).items() if name not in free})
    card = Results(args.out / "teachings.json", settings, machine.facts(), resume=True)
    done = set()
    if rows.exists():
        done = {tuple(json.loads(line)["which"]) for line in rows.read_text().splitlines() if line.strip()}
    trainer = Trainer(args)
    networks = trainer.prepare()
    if card.found.get("networks", networks) != networks:
        raise SystemExit(
            f"{args.out}: the draws that are there had other teachers, {card.found['networks']}; there are {networks} "
            "now: restore them, or give another --out"
        )
    card.found["networks"] = networks
    card.save()
    tasks = [which for which in all_tasks(args) if which not in done]
    say(f"{len(done)} trainings are there, {len(tasks)} to come; teachers: {card.found['networks']}")
    with open(rows, "a") as file:
        for n, (arm, block, number) in enumerate(tasks, start=1):
            began = time.perf_counter()
            row = trainer.train(arm, block, number)
            row["seconds"] = time.perf_counter() - began
            file.write(json.dumps(row) + "\n")
            file.flush()
            say(f"{n}/{len(tasks)} {arm} {block} {row['test_accuracy']:.4f} {row['seconds']:.1f} s")


def all_tasks(args: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Arm, block and number of a draw, or of a seed; arms take turns."""
    for number in range(max(args.draws, args.alone)):
        for block in BLOCKS:
            if number < args.alone:
                yield ALONE, block, number
            if number < args.draws:
                yield from ((arm, block, number) for arm in (SUBSET, *args.presets))


class Trainer:
    """Trains students with one teacher, of as many images as `args` say."""

    def __init__(self, args: argparse.Namespace) -> None:
        from harness.setting import Setting, study
        from naskd.spec.design import DistillationSpec, KnowledgeTerm, TrialConfig
        from table_parts import space, splits
        from table_parts.recording import TEACHER_TRAINING

        self.args = args
        sizes = splits.Splits(args.student_images, args.teacher_images, args.val_images, args.test_images)
        images, labels, classes = splits.read(args.images, args.out / "images.npz")
        if args.halved:
            n, channels, height, width = images.shape
            squares = images.reshape(n, channels, height // 2, 2, width // 2, 2)
            images = squares.mean((3, 5), dtype="float32").round().astype("uint8")
        self.parts = splits.cut(images, labels, classes, sizes)
        teaching = dataclasses.replace(TEACHER_TRAINING, epochs=args.teacher_epochs)
        self.training = dataclasses.replace(space.TRAINING, epochs=args.epochs)
        self.spec = study(args, space.TEACHER, args.epochs, teaching)
        states = [("teacher", round(args.teacher_epochs / 2))]
        foreseen = ("attention", "hint", "logits", "rkd")
        self.setting = Setting(
            self.spec,
            args.out / "students",
            args.out / "bank",
            self.parts.student,
            foreseen,
            foreseen_states=states,
        )
        self.teaching = Setting(
            self.spec, args.out / "teacher", None, self.parts.teacher, foreseen_states=states
        )
        self.setting.compute.apply_threads()
        self.by_state = TrialConfig(
            self.student("basic"),
            DistillationSpec((KnowledgeTerm("logits"),), teacher_state=0.5),
            self.training,
        )

    def student(self, block: str) -> Any:
        from table_parts import space

        given = {"block": block, "width": self.args.width, "growth": 2.0}
        stride = 1 if self.args.halved else 2  # a last map of one pixel has nothing to hint at
        return space.architecture(
            space.Point({**given, "stage2.depth": 1, "stage3.depth": 1, "stage3.stride": stride})
        )

    def prepare(self) -> dict[str, float]:
        """Have the teacher and its state made, as if on the students' images; their validation accuracies."""
        self.teaching.make(self.by_state)
        found = {}
        here, there = (
            setting.context.designs.recipes(self.by_state) for setting in (self.setting, self.teaching)
        )
        for mine, theirs in zip(here, there, strict=True):
            state, manifest = self.teaching.context.resources.store.load(theirs.artifact_id)
            if mine.artifact_id not in self.setting.context.resources.store:
                self.setting.context.resources.store.save(mine.artifact_id, state, manifest)
            found[mine.label] = manifest["val_accuracy"]
        return found

    def train(self, arm: str, block: str, number: int) -> dict[str, Any]:
        from naskd.spec.design import DistillationSpec, TrialConfig
        from naskd.spec.seeds import derive_seed, trial_seed
        from naskd.training.evaluation import accuracy, predict
        from naskd.trials.methods import canonical

        student = self.student(block)
        taught, params = (DistillationSpec(), {}) if arm == ALONE else drawn(arm, student, number)
        config = canonical(TrialConfig(student, taught, self.training))
        self.setting.make(config)
        seed = trial_seed(0, config.config_id)
        run = self.setting.start(config, derive_seed("replicate", seed, number) if arm == ALONE else seed)
        run.advance(run.total_epochs)
        test = self.parts.test
        said = predict(run.scheme.deployed, test.images, self.setting.compute)
        return {
            "which": [arm, block, number],
            "params": params,
            "macs": run.cost.macs,
            "train_macs": run.train_macs,
            "val_accuracy": run.curve[-1]["val_accuracy"],
            "test_accuracy": accuracy(said, test.labels),
        }


def drawn(arm: str, student: Any, number: int) -> tuple[Any, dict[str, Any]]:
    """A random way of an arm, and the values that were drawn."""
    import optuna

    from harness.setting import resnet
    from naskd.spaces import KnowledgeChoice, suggest_distillation, suggest_teaching
    from naskd.spec.design import AssistantSpec
    from table_parts import space

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number)).ask()
    if arm != SUBSET:
        return suggest_teaching(trial, arm, student=student), trial.params
    stages = ("first", "middle", "last", "all")
    kinds = (
        KnowledgeChoice("logits", temperature=(1.0, 8.0)),
        KnowledgeChoice("hint", pairs=stages),
        KnowledgeChoice("attention", pairs=stages),
        KnowledgeChoice("rkd"),
    )
    assistant = AssistantSpec(
        resnet(1, 24, stem_stride=2),
        dataclasses.replace(space.TRAINING, batch_size=128, learning_rate=3e-3, epochs=10),
    )
    return suggest_distillation(trial, kinds, assistants={"medium": assistant}), trial.params


def report(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Tables in Markdown."""
    alone = {block: statistics.fmean(accuracies(rows, ALONE, block)) for block in BLOCKS}
    arms = list(dict.fromkeys(row["which"][0] for row in rows))
    lines = header("student", "arm", "n", "mean ± sd", "best", "above the labels alone, %")
    for block in BLOCKS:
        for arm in arms:
            found = accuracies(rows, arm, block)
            above = 100 * sum(value > alone[block] for value in found) / len(found)
            lines.append(
                f"| {block} | {arm} | {len(found)} | {statistics.fmean(found):.4f} ± {sd(found):.4f} | "
                f"{max(found):.4f} | {above:.0f} |"
            )
    for arm in arms:
        if arm not in (ALONE, SUBSET):
            lines += ["", *choices([row for row in rows if row["which"][0] == arm], alone, arm)]
    return lines


def accuracies(rows: Sequence[dict[str, Any]], arm: str, block: str) -> list[float]:
    return [row["test_accuracy"] for row in rows if row["which"][:2] == [arm, block]]


def choices(rows: Sequence[dict[str, Any]], alone: dict[str, float], arm: str) -> list[str]:
    """Mean gain over the labels alone of the draws with each choice, in points."""
    lines = header(f"choice of `{arm}`", *BLOCKS)
    for name in ("kd.response", "kd.share", "kd.temperature", "kd.feature", "kd.hint.weight", "kd.assistant"):
        for value in sorted({level(name, row) for row in rows if name in row["params"]} - {""}):
            cells = []
            for block in BLOCKS:
                gains = [
                    100 * (row["test_accuracy"] - alone[block])
                    for row in rows
                    if row["which"][1] == block and name in row["params"] and level(name, row) == value
                ]
                cells.append(
                    f"{statistics.fmean(gains):+.1f} ± {sd(gains):.1f} ({len(gains)})" if gains else "-"
                )
            lines.append(f"| {name} {value} | {' | '.join(cells)} |")
    return lines


def level(name: str, row: dict[str, Any]) -> str:
    """A choice, or the half of a range that a number is in; "" where it has no part in the design."""
    value, params = row["params"][name], row["params"]
    if name in ("kd.share", "kd.temperature") and params["kd.response"] == "none":
        return ""
    if name == "kd.hint.weight" and params.get("kd.feature") != "hint":
        return ""
    middle = {"kd.share": 0.45, "kd.temperature": 12**0.5, "kd.hint.weight": 1.0}.get(name)
    if middle is None:
        return str(value)
    return f"below {middle:.3g}" if value < middle else f"above {middle:.3g}"


if __name__ == "__main__":
    main()
