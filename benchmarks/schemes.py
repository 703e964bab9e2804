"""What each scheme does for a student: beside the same student undistilled and taught by answers, at equal cost too.

    python benchmarks/schemes.py --out schemes_table.md
    python benchmarks/schemes.py --images cifar10-train.zip --out schemes_cifar10.md --runs runs/schemes

Two students, one smaller than the other. Each way trains as many epochs as all others, and as many epochs as the
multiply-accumulates of the undistilled training pay for: those of all that is trained or run beside it. What the
teacher says comes from a bank that is filled once for all trainings, and is not among them. Schemes that need a teacher
have ``logits`` as their term; all others have the labels alone. On digits the teacher has seen the images of its
students, and validation images judge. Of a zip file of images students have 5,000, the teacher 25,000, and test images
judge that nothing was chosen by.

Ways and seeds in turns. Differences are paired by seed, with a 95 % t interval. Writes the Markdown table, and
everything as JSON beside it, after each training; ``--resume`` goes on from there.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness import machine
from harness.arguments import new_file, parser
from harness.results import Results, Row, say
from harness.setting import ROOT, Setting
from harness.spread import difference, header, sd
from naskd.data.images import ImageSet
from naskd.schemes import SCHEMES
from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.parse import parse_study
from naskd.spec.userfile import import_file
from naskd.training.evaluation import accuracy, predict
from naskd.trials.run import TrialRun

NONE, LOGITS = "none", "logits"
OTHER = ("offline", "compression_order", "lwf", "progressive_blockwise")
"""``logits`` is the first; the second is that without its options; the third learns another task; the stages of the
smaller student do not fit into the places of the teacher's, as the last wants it. Ask for that with ``--ways``."""
OPTIONS = {"progressive_blockwise": (("receptive_field", "any"),)}
"""A stage of one block stands for the teacher's of two."""
LENGTHS = ("equal epochs", "equal cost")
TERM = (KnowledgeTerm("logits", temperature=4.0),)
TEACHER_EPOCHS = 15
"""Of the teacher of a zip file's images."""


def main() -> None:
    given = parser(__doc__, json=False)
    given.add_argument("--images", type=Path, help="zip file of <class>/<name>.jpg; default: digits")
    given.add_argument("--train-images", type=int, default=5000)
    given.add_argument("--teacher-images", type=int, default=25000, help="the students' among them")
    given.add_argument("--seeds", type=int, default=5)
    given.add_argument("--epochs", type=int, default=16)
    given.add_argument(
        "--ways",
        nargs="+",
        default=[card.name for card in SCHEMES if card.name not in OTHER],
        metavar="SCHEME",
    )
    given.add_argument("--students", nargs="+", default=["smaller", "small"], choices=["smaller", "small"])
    given.add_argument("--lengths", nargs="+", default=list(LENGTHS), choices=LENGTHS)
    given.add_argument("--runs", type=Path, default=Path("runs"), help="where the teacher is kept")
    given.add_argument("--out", type=new_file, help="Markdown file of the table")
    given.add_argument("--resume", action="store_true", help="keep what the JSON file beside --out has")
    args = given.parse_args()
    torch.set_num_threads(1)
    results = Results(args.out and args.out.with_suffix(".json"), args, machine.facts(), resume=args.resume)
    found: list[Row] = results.found.setdefault("rows", [])
    place: Place = Images(args) if args.images else Digits(args)
    done = {(row["student"], row["length"], row["way"], row["seed"]) for row in found}
    for seed in range(args.seeds):
        for student in args.students:
            for length in args.lengths:
                for way in (NONE, LOGITS, *args.ways):
                    if (student, length, way, seed) in done:
                        continue
                    found.append(measured(place, student, length, way, seed, found, args))
                    say(student, length, way, seed, found[-1].get("accuracy", found[-1].get("error")))
                    results.save()
    text = "\n".join(table(found, args))
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


class Place:
    """Where it is measured: images, a teacher, and two students.

    Attributes:
        setting: Of the students' images, with the teacher made.
        students: By name.
        training: Of each.
        test: Who judges; None for the validation images.
    """

    setting: Setting
    students: dict[str, ArchitectureSpec]
    training: TrainingSpec
    test: ImageSet | None = None


class Digits(Place):
    """The study of digits: 35 and 9 thousand MACs."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.setting = Setting(parse_study(ROOT / "studies/digits.toml"), args.runs)
        self.setting.make()
        self.students = {"smaller": two_stages(4, stride=2), "small": two_stages(4)}
        space = import_file(ROOT / "search_spaces/digits.py")
        self.training = replace(space.TRAINING, epochs=args.epochs, learning_rate=0.01)


class Images(Place):
    """Of a zip file, with the networks of the recorded tables: 0.22 and 0.81 million MACs at 32x32."""

    def __init__(self, args: argparse.Namespace, state_epochs: Sequence[int] = ()) -> None:
        from table_parts import space, splits
        from table_parts.recording import open_place

        args.runs.mkdir(parents=True, exist_ok=True)
        images = splits.read(args.images, args.runs / "images.npz")
        sizes = splits.Splits(args.train_images, args.teacher_images, val=2000, test=3000)
        given = argparse.Namespace(device="cpu", threads=1, execution=[], teacher_epochs=TEACHER_EPOCHS)
        parts = splits.cut(*images, sizes)
        self.setting = open_place(given, parts, args.runs, state_epochs)
        self.setting.make()
        self.test = parts.test.to(self.setting.compute.device)
        self.students = {
            "smaller": space.three_stages(4, (1, 1, 1)),
            "small": space.three_stages(8, (1, 1, 1)),
        }
        self.training = replace(space.TRAINING, epochs=args.epochs)


def two_stages(width: int, stride: int = 1) -> ArchitectureSpec:
    stages = (StageSpec("basic", 1, width), StageSpec("basic", 1, 2 * width, stride=2))
    return ArchitectureSpec(stem_width=width, stem_stride=stride, stages=stages)


def teaching(way: str) -> DistillationSpec:
    if way in (NONE, LOGITS):
        return DistillationSpec(TERM if way == LOGITS else ())
    terms = TERM if SCHEMES[way].needs_teacher else ()
    return DistillationSpec(terms, scheme=way, scheme_options=OPTIONS.get(way, ()))


def measured(
    place: Place,
    student: str,
    length: str,
    way: str,
    seed: int,
    found: Sequence[Row],
    args: argparse.Namespace,
) -> Row:
    """A training; one that failed has ``error``."""
    row: Row = {"student": student, "length": length, "way": way, "seed": seed}
    began = time.perf_counter()
    try:
        epochs = place.training.epochs
        if length != LENGTHS[0]:
            epochs = affordable(student, way, seed, found, epochs)
        taught = teaching(way).canonical()
        config = TrialConfig(place.students[student], taught, replace(place.training, epochs=epochs))
        place.setting.make(config)
        run = place.setting.start(config, seed)
        run.advance(run.total_epochs)
        row |= {"epochs": epochs, "accuracy": judged(run, place), "train_macs": run.train_macs}
        row |= {"own_macs": own_macs(run)}
        row |= {"val_accuracy": run.curve[-1]["val_accuracy"], "macs": run.cost.macs}
    except (ArithmeticError, ValueError, LookupError) as error:
        row["error"] = f"{type(error).__name__}: {error}"
    return {**row, "seconds": round(time.perf_counter() - began, 2)}


def own_macs(run: TrialRun) -> float:
    """Of a whole training, without what a bank remembers; of images that a scheme makes there is none."""
    asked = SCHEMES[run.scheme.inputs.distillation.scheme].own_teaching
    each = run.macs_per_image if asked else run._own_macs
    trained = sum(run.loop.images_per_epoch(e) * each(e) for e in range(run.total_epochs))
    return trained + run.total_epochs * len(run.context.resources.data.val) * run.cost.macs


def affordable(student: str, way: str, seed: int, found: Sequence[Row], epochs: int) -> int:
    """Epochs of a way for the multiply-accumulates of the undistilled training, at least 2.

    Raises:
        LookupError: It has not been trained as long as the others.
    """
    paid = {
        row["way"]: row["own_macs"]
        for row in found
        if (row["student"], row["length"], row["seed"]) == (student, LENGTHS[0], seed) and "own_macs" in row
    }
    if not {way, NONE} <= paid.keys():
        raise LookupError(f"{way} was not trained at {LENGTHS[0]}")
    return max(2, round(epochs * paid[NONE] / paid[way]))


def judged(run: TrialRun, place: Place) -> float:
    if place.test is None:
        return float(run.curve[-1]["val_accuracy"])
    said = predict(run.scheme.deployed, place.test.images, place.setting.compute)
    return accuracy(said, place.test.labels)


def table(found: Sequence[Row], args: argparse.Namespace) -> list[str]:
    """One table a student and length, the best first; then what failed."""
    lines: list[str] = []
    for student in args.students:
        for length in args.lengths:
            mine = [r for r in found if (r["student"], r["length"]) == (student, length) and "accuracy" in r]
            if any(row["way"] == NONE for row in mine):
                lines += ["", f"{student} student, {mine[0]['macs']:,} MACs, {length}:", "", *_rows(mine)]
    failed = [row for row in found if "error" in row]
    if failed:
        lines += ["", "Failed:", ""]
        lines += [
            f"- {r['student']}, {r['length']}, {r['way']}, seed {r['seed']}: {r['error']}" for r in failed
        ]
    return lines[1:]


def _rows(mine: Sequence[Row]) -> list[str]:
    by_way: dict[str, dict[int, Row]] = {}
    for row in mine:
        by_way.setdefault(row["way"], {})[row["seed"]] = row
    plain = by_way[NONE]
    cost = statistics.fmean(row["own_macs"] for row in plain.values())

    def against(way: str, other: str) -> str:
        there = sorted(by_way[way].keys() & by_way.get(other, {}).keys())
        if way == other or not there:
            return ""
        one, two = ([by_way[name][seed]["accuracy"] for seed in there] for name in (way, other))
        return difference(one, two) if len(there) > 1 else f"{one[0] - two[0]:+.4f}"

    lines = header(
        "scheme",
        "n",
        "epochs",
        "MACs, times none's",
        "accuracy",
        "minus none [95 %]",
        "minus logits [95 %]",
    )
    ordered = sorted(by_way, key=lambda way: -statistics.fmean(_of(by_way[way], "accuracy")))
    for way in ordered:
        accuracies = _of(by_way[way], "accuracy")
        spread = f" ± {sd(accuracies):.4f}" if len(accuracies) > 1 else ""
        lines.append(
            f"| `{way}` | {len(accuracies)} | {statistics.fmean(_of(by_way[way], 'epochs')):.0f} | "
            f"{statistics.fmean(_of(by_way[way], 'own_macs')) / cost:.2f} | "
            f"{statistics.fmean(accuracies):.4f}{spread} | "
            f"{against(way, NONE)} | {against(way, LOGITS)} |"
        )
    return lines


def _of(rows: dict[int, Row], key: str) -> list[Any]:
    return [rows[seed][key] for seed in sorted(rows)]


if __name__ == "__main__":
    main()
