"""Is a student of the bank as good as one of the online teacher? The same views, orders and initial weights."""

import argparse
import statistics
from pathlib import Path

from harness.images import load_images
from harness.results import Row, say
from harness.setting import TEACHINGS, open_setting, resnet, study
from harness.spread import header, interval
from harness.timing import timed
from naskd.spec.design import TrainingSpec

ARMS = ("online", "bank")


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    if args.images is None and not args.quick:
        raise ValueError("part equal needs --images: made-up images teach nothing")
    training = TrainingSpec(
        epochs=args.equal_epochs, batch_size=128, augmentation="flip_translate", weight_decay=0.05
    )
    teaching = TrainingSpec(
        epochs=args.equal_teacher_epochs, batch_size=128, augmentation="flip_translate", weight_decay=0.05
    )
    data = load_images(args, args.equal_images, args.equal_images // 4)
    spec = study(args, resnet(9, args.width), args.equal_epochs, teaching)
    setting = open_setting(spec, data, folder, folder / "cache")
    rows: list[Row] = []
    for seed in range(args.equal_seeds):
        for arm in ARMS if seed % 2 else ARMS[::-1]:
            before = setting.asked_images
            run = setting.run(
                resnet(3, args.width), TEACHINGS["all three"], training, seed, online=arm == "online"
            )
            seconds = timed(setting.compute, lambda run=run: run.advance(run.total_epochs))
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "val_accuracy": run.curve[-1]["val_accuracy"],
                    "seconds": seconds,
                    "asked": setting.asked_images - before,
                    "teacher_accuracy": setting.teacher_accuracy,
                    "margin": args.equal_margin,
                    "images": len(data.train),
                    "epochs": args.equal_epochs,
                    "val_images": len(data.val),
                }
            )
            say("equal", rows[-1])
    return rows


def table(rows: list[Row]) -> list[str]:
    by = {
        arm: sorted((row for row in rows if row["arm"] == arm), key=lambda row: int(row["seed"]))
        for arm in ARMS
    }
    lines = header("arm", "seeds", "validation accuracy, mean (range)", "teacher asked, images a training")
    for arm, mine in by.items():
        found = [row["val_accuracy"] for row in mine]
        asked = ", ".join(f"{row['asked']:,}" for row in mine)
        lines.append(
            f"| {arm} | {len(found)} | {statistics.fmean(found):.4f} ({min(found):.4f} to {max(found):.4f}) | {asked} |"
        )
    pairs = [b["val_accuracy"] - o["val_accuracy"] for o, b in zip(by["online"], by["bank"], strict=True)]
    low, high = interval(pairs)
    margin, first = rows[0]["margin"], rows[0]
    shown = "equal" if -margin < low and high < margin else "not shown to be equal"
    lines += [
        "",
        f"{first['images']:,} images, {first['epochs']} epochs, {first['val_images']:,} validation images; teacher at "
        f"{first['teacher_accuracy']:.4f}. Bank minus online, paired by seed: {statistics.fmean(pairs):+.4f}, 95 % "
        f"interval [{low:+.4f}, {high:+.4f}]. Margin, stated before: {margin:g}. {shown} (two one-sided tests at 2.5 "
        "%: the whole interval must lie within the margin).",
    ]
    return lines
