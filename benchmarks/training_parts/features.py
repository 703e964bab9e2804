"""A step that is taught by all stages of a teacher's maps from a warm bank, at real numbers of images."""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from harness.images import load_images
from harness.results import Row, say
from harness.setting import Setting, open_setting, resnet, study
from harness.spread import header, middle, ratios, values, verdict
from harness.timing import in_turns, timed
from naskd.data.images import SearchData
from naskd.knowledge.source import OnlineSource
from naskd.nn.taps import Tap, Taps, taps_like
from naskd.spec.datasets import DataSpec
from naskd.spec.design import KnowledgeTerm, TrainingSpec

LIMIT = 1.15
EPOCHS = 30
"""Of the trainings whose steps these are: they say how many columns a bank without a bound on views would have."""
WARM_UP = 2
HINT = (KnowledgeTerm("hint", weighting="balanced", pairs="all"),)
ARMS = ("none", "bank", "online")


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    rows: list[Row] = []
    for images in args.features_images:
        (home := folder / str(images)).mkdir()
        rows += _at(args, load_images(args, images, max(10, images // 50)), home)
    return rows


def _at(args: argparse.Namespace, data: SearchData, folder: Path) -> list[Row]:
    training = TrainingSpec(epochs=EPOCHS, batch_size=args.features_batch, augmentation="flip_translate")
    teaching = replace(training, epochs=1)
    spec = study(args, resnet(args.features_teacher_depth, args.width), EPOCHS, teaching)
    spec = replace(spec, data=DataSpec("digits", views=args.features_views))
    # What the teacher has learned does not matter here, so that some of the images are enough to make it.
    train = replace(data.train, images=data.train.images[:256], labels=data.train.labels[:256])
    open_setting(spec, replace(data, train=train), folder, None)
    setting = Setting(spec, folder, folder / "cache", data)
    student = resnet(1, args.features_width)
    fill = timed(setting.compute, lambda: _fill(args, setting))
    runs = {
        arm: setting.run(student, HINT if arm != "none" else (), training, online=arm == "online")
        for arm in ARMS
    }
    for run in runs.values():
        for _ in range(WARM_UP):
            run.loop.run_epoch(max_steps=args.features_steps)
    files = list((folder / "cache").rglob("*@*.safetensors"))
    common = {
        "images": len(data.train),
        "student_macs": runs["none"].cost.macs,
        "teacher_macs": setting.teacher_macs,
        "fill_seconds": fill,
        "columns": args.features_views,
        "bank_bytes": sum(file.stat().st_size for file in files),
        "stand_in": args.features_stand_in,
        "in_8_bits": sum(".8bit@" in file.name for file in files),
    }
    rows: list[Row] = []
    for number, arm in in_turns(ARMS, args.features_repetitions):
        before = setting.asked_images
        run = runs[arm]
        began = time.process_time()
        seconds = timed(setting.compute, lambda run=run: run.loop.run_epoch(max_steps=args.features_steps))
        processor = time.process_time() - began
        asked = (setting.asked_images - before) / args.features_steps
        rows.append(
            {
                "repetition": number,
                "arm": arm,
                "seconds": seconds / args.features_steps,
                "processor_seconds": processor / args.features_steps,
                "asked": asked,
                **common,
            }
        )
        say("features", rows[-1])
    return rows


class _StandIn:
    """Shows maps of the right shapes without computing any: to read them takes as long as to read a teacher's.

    Args:
        like: Who shows which shapes.
    """

    def __init__(self, like: OnlineSource) -> None:
        self._shapes = like.shapes

    def taps(self, images: Tensor) -> Taps:
        found = taps_like(self._shapes, len(images), str(images.device))

        def tap(of: Tap) -> Tap:
            _, channels, *grid = of.tensor.shape
            grey = functional.adaptive_avg_pool2d(images[:, :1], grid)
            loud = torch.linspace(-1, 1, channels, device=images.device)[:, None, None]
            return replace(of, tensor=(grey * loud).relu().contiguous(memory_format=torch.channels_last))

        return replace(found, stages=tuple(map(tap, found.stages)))


def _fill(args: argparse.Namespace, setting: Setting) -> None:
    """All columns, as the first training that is taught fills them."""
    source = setting.context.sources.online(setting.context.prerequisites.teacher())
    network = source.network
    if args.features_stand_in:
        source.network = _StandIn(source)  # type: ignore[assignment]  # taps are all that is asked of it
    try:
        _first_steps(args, setting)
    finally:
        source.network = network


def _first_steps(args: argparse.Namespace, setting: Setting) -> None:
    training = TrainingSpec(epochs=EPOCHS, batch_size=args.features_batch, augmentation="flip_translate")
    run = setting.run(resnet(1, args.features_width), HINT, training)
    for _ in range(args.features_views):
        run.loop.run_epoch(max_steps=1)


def table(rows: list[Row]) -> list[str]:
    lines = header(
        "images",
        "arm",
        "ms a step",
        "ratio to none",
        "goal",
        "ratio to none of processor time",
        "teacher asked, images a step",
    )
    for images in dict.fromkeys(row["images"] for row in rows):
        mine = [row for row in rows if row["images"] == images]
        plain, plain_processor = (values(mine, key, arm="none") for key in ("seconds", "processor_seconds"))
        for arm in ARMS:
            seconds = values(mine, "seconds", arm=arm)
            fold = ratios(seconds, plain)
            goal = "-" if arm != "bank" else f"{LIMIT} {verdict(sorted(fold)[len(fold) // 2] <= LIMIT)}"
            asked = values(mine, "asked", arm=arm)
            processor = ratios(values(mine, "processor_seconds", arm=arm), plain_processor)
            lines.append(
                f"| {images:,} | {arm} | {middle([1e3 * s for s in seconds], 1)} | {middle(fold)} | {goal} | "
                f"{middle(processor)} | {middle(asked, 0)} |"
            )
    lines += [
        "",
        "Processor time is that of this process, which others on the machine disturb less; on a GPU it says nothing.",
    ]
    for images in dict.fromkeys(row["images"] for row in rows):
        row = next(row for row in rows if row["images"] == images)
        lines.append(
            f"{images:,} images, {row['columns']} views each of a plan of {EPOCHS} epochs: the bank has "
            f"{row['bank_bytes'] / 2**20:,.0f} MiB, {row['in_8_bits']} of its files in 8 bits, and was filled in "
            f"{row['fill_seconds']:.0f} s{' by a stand-in' * row['stand_in']}. "
            f"Student {row['student_macs']:,} MACs, teacher {row['teacher_macs']:,}."
        )
    return lines
