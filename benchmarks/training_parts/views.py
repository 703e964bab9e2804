"""How many views of an image must a student see? Accuracy by their number, with the same orders and initial weights."""

import argparse
import dataclasses
import statistics
from pathlib import Path

from harness.images import load_images
from harness.results import Row, say
from harness.setting import Setting, open_setting, resnet, study
from harness.spread import header, interval
from harness.timing import in_turns, timed
from naskd.data.images import ImageSet, SearchData
from naskd.knowledge.bank import BankedSource
from naskd.knowledge.source import OnlineSource, teacher_parts
from naskd.nn.taps import tap_shapes
from naskd.spec.design import ArchitectureSpec, DistillationSpec, KnowledgeTerm, TrainingSpec
from naskd.trials.run import TrialRun

ALL = 0
"""Instead of a number of views."""
KINDS: dict[str, tuple[KnowledgeTerm, ...]] = {
    "none": (),
    "logits": (KnowledgeTerm("logits"),),
    "hint": (KnowledgeTerm("hint", weighting="balanced", pairs="all"),),
}


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    if args.images is None and not args.quick:
        raise ValueError("part views needs --images: made-up images teach nothing")
    folder = args.views_home or folder
    everything = load_images(args, args.views_teacher_images, args.views_val)
    teaching = TrainingSpec(
        epochs=args.views_teacher_epochs, batch_size=128, augmentation="flip_translate", weight_decay=0.05
    )
    spec = study(args, _network(args, args.views_teacher_depth, args.width), args.views_epochs, teaching)
    taught = open_setting(spec, everything, folder / "teacher", None)
    say("views", {"teacher": taught.teacher_accuracy, "macs": taught.teacher_macs})
    setting = Setting(spec, folder / "students", None, _first(everything, args.views_images))
    network = taught.teacher()
    channels, resolution = setting.context.resources.input_shape
    online = OnlineSource(
        network, tap_shapes(network, channels, resolution), taught.teacher_macs, teacher_parts(network)
    )
    rows: list[Row] = []
    arms = [(kind, most) for kind in args.views_kinds for most in (ALL, *args.views_most)]
    for seed, (kind, most) in in_turns(arms, args.views_seeds):
        run = _run(args, setting, online, folder / "bank", kind, most, seed)
        seconds = timed(setting.compute, lambda run=run: _train(run))
        rows.append(
            {
                "kind": kind,
                "views": most,
                "seed": seed,
                "val_accuracy": run.curve[-1]["val_accuracy"],
                "seconds": seconds,
                "student_macs": run.cost.macs,
                "teacher_accuracy": taught.teacher_accuracy,
                "images": args.views_images,
                "epochs": args.views_epochs,
                "val_images": args.views_val,
            }
        )
        say("views", rows[-1])
    return rows


def _network(args: argparse.Namespace, depth: int, width: int) -> ArchitectureSpec:
    """On half the grid on a CPU, where time is short; the views are the same."""
    return resnet(depth, width, stem_stride=2 if args.device == "cpu" else 1)


def _train(run: TrialRun) -> None:
    """A whole training, evaluated at its end alone."""
    while run.epoch < run.total_epochs - 1:
        run.loop.run_epoch()
    run.advance(run.total_epochs)


def _first(data: SearchData, n: int) -> SearchData:
    train = ImageSet(data.train.images[:n].clone(), data.train.labels[:n].clone())
    return dataclasses.replace(data, train=train, split_hash=f"{data.split_hash}-{n}")


def _run(
    args: argparse.Namespace,
    setting: Setting,
    online: OnlineSource,
    bank: Path,
    kind: str,
    most: int,
    seed: int,
) -> TrialRun:
    training = TrainingSpec(epochs=args.views_epochs, batch_size=64, augmentation="flip_translate")
    student = _network(args, 1, args.views_width)
    images = setting.context.images.all_views(training.augmentation)
    images = images.bounded(most) if most != ALL else images
    source = BankedSource(
        online,
        lambda index, epoch: images.batch(index, epoch)[0],
        args.views_images,
        images.views.n_views,
        training.epochs,
        2**40,
        folder=bank,  # the same for all: they show the same views, some more of them
    )
    return TrialRun(
        DistillationSpec(terms=KINDS[kind]).canonical(),
        training,
        lambda: setting.student(student),
        setting.context,
        seed,
        images,
        (source,) if KINDS[kind] else (),
        architecture=student,
    )


def table(rows: list[Row]) -> list[str]:
    lines = header("taught by", "views", "validation accuracy, mean", "minus all views, points [95 %]")
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    numbers = sorted({row["views"] for row in rows} - {ALL})
    for kind in kinds:
        found = {
            most: {
                row["seed"]: row["val_accuracy"]
                for row in rows
                if (row["kind"], row["views"]) == (kind, most)
            }
            for most in (ALL, *numbers)
        }
        for most, by_seed in found.items():
            apart = [100 * (value - found[ALL][seed]) for seed, value in by_seed.items()]
            cell = "-"
            if most != ALL:
                low, high = interval(apart)
                cell = f"{statistics.fmean(apart):+.2f} [{low:+.2f}, {high:+.2f}]"
            mean = statistics.fmean(by_seed.values())
            lines.append(f"| {kind} | {most or 'all'} | {mean:.4f} | {cell} |")
    first = rows[0]
    lines += [
        "",
        f"{first['images']:,} images, {first['epochs']} epochs, flips and translations, {first['val_images']:,} "
        f"validation images; student of {first['student_macs']:,} MACs; teacher at {first['teacher_accuracy']:.4f}. "
        "Paired by seed: the same order of samples and initial weights.",
    ]
    return lines
