"""A training step with a warm bank, with an online teacher, and without any teacher."""

import argparse
import dataclasses
import gc
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from harness.images import load_images
from harness.results import Row, say
from harness.setting import LOGITS, MAPS, Setting, open_setting, resnet, study
from harness.spread import header, middle, ratios, values, verdict
from harness.timing import in_turns, matmul_rate, timed
from naskd.data.images import SearchData
from naskd.spec.design import KnowledgeTerm, TrainingSpec
from naskd.trials.run import TrialRun

LIMIT = 1.10
WARM_UP = 2
"""Blocks before the clock: allocations, the choice of kernels, recordings of the device's work."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to teach."""

    name: str
    terms: tuple[KnowledgeTerm, ...] = ()
    online: bool = False


ARMS = (
    Arm("none"),
    Arm("bank, logits", LOGITS),
    Arm("bank, hint+attention", MAPS),
    Arm("online, logits", LOGITS, online=True),
    Arm("online, hint+attention", MAPS, online=True),
)


def training_of(args: argparse.Namespace) -> TrainingSpec:
    return TrainingSpec(
        epochs=WARM_UP + args.repetitions, batch_size=args.step_batch, augmentation="flip_translate"
    )


def setting_of(args: argparse.Namespace, data: SearchData, folder: Path) -> Setting:
    training = training_of(args)
    teaching = dataclasses.replace(training, epochs=1)
    spec = study(args, resnet(9, args.width), training.epochs, teaching)
    return open_setting(spec, data, folder, folder / "cache")


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    data = load_images(args, args.step_images, max(10, args.step_images // 8))
    rows = in_blocks(args, data, folder)
    if args.memory:
        peaks = device_peaks if args.device == "cuda" else process_peaks
        rows += [{"arm": name, "peak_bytes": size} for name, size in peaks(args, data, folder).items()]
    return rows


def in_blocks(args: argparse.Namespace, data: SearchData, folder: Path) -> list[Row]:
    """All arms in turns, a block of steps each."""
    setting, training, student = setting_of(args, data, folder), training_of(args), resnet(3, args.width)
    for terms in (LOGITS, MAPS):
        setting.warm(student, terms, training)
    runs = {arm.name: setting.run(student, arm.terms, training, online=arm.online) for arm in ARMS}
    for run in runs.values():
        for _ in range(WARM_UP):
            run.loop.run_epoch(max_steps=args.step_steps)
    matmul_rate(setting.compute, args.matmul)
    rows: list[Row] = []
    for number, arm in in_turns((*ARMS, None), args.repetitions):
        if arm is None:
            rate = matmul_rate(setting.compute, args.matmul)
            rows.append({"repetition": number, "arm": "matrix product", "rate": rate})
        else:
            row = block(args, setting, arm, runs[arm.name])
            rows.append({"repetition": number, "arm": arm.name, **row})
            say("step", rows[-1])
    return rows


def block(args: argparse.Namespace, setting: Setting, arm: Arm, run: TrialRun) -> Row:
    """Time some steps of a run."""
    before, epoch = setting.asked_images, run.epoch
    seconds = timed(setting.compute, lambda: run.loop.run_epoch(max_steps=args.step_steps))
    images = min(args.step_steps * args.step_batch, run.loop.images_per_epoch(epoch))
    asked = setting.asked_images - before
    teacher = setting.teacher_macs
    # What the run counts of its teacher is as if it were always asked; here counts what was executed.
    trained = run.macs_per_image(epoch) - (teacher if arm.terms else 0)
    return {
        "seconds": seconds,
        "steps": -(-images // args.step_batch),
        "images": images,
        "asked": asked,
        "macs": trained * images + teacher * asked,
    }


# --- peak memory ---------------------------------------------------------------------------------------------------


def alone(args: argparse.Namespace, data: SearchData, folder: Path, arm: Arm) -> None:
    """Train a few steps of one arm, nothing else being there."""
    run = setting_of(args, data, folder).run(
        resnet(3, args.width), arm.terms, training_of(args), online=arm.online
    )
    for _ in range(WARM_UP):
        run.loop.run_epoch(max_steps=min(4, args.step_steps))


def device_peaks(args: argparse.Namespace, data: SearchData, folder: Path) -> dict[str, int]:
    """The device's memory at most, images and bank included."""
    found = {}
    for arm in ARMS:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        alone(args, data, folder, arm)
        found[arm.name] = torch.cuda.max_memory_allocated()
    return found


def process_peaks(args: argparse.Namespace, data: SearchData, folder: Path) -> dict[str, int]:
    """The resident memory at most of a fresh process for each arm."""
    found = {}
    for number, arm in enumerate(ARMS):
        command = [sys.executable, *sys.argv, "--memory-of", str(number), "--home", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[arm.name] = int(json.loads(done.stdout.splitlines()[-1])["peak_bytes"])
    return found


def print_process_peak(args: argparse.Namespace) -> None:
    """What the process of one arm does."""
    data = load_images(args, args.step_images, max(10, args.step_images // 8))
    alone(args, data, args.home, ARMS[args.memory_of])
    # Not ru_maxrss: a process begins with that of the one that started it.
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
    print(json.dumps({"peak_bytes": 1024 * peak}))


# --- the table -----------------------------------------------------------------------------------------------------


def table(rows: list[Row]) -> list[str]:
    plain = values([row for row in rows if "seconds" in row], "seconds", arm="none")
    rates = values(rows, "rate", arm="matrix product")
    lines = header(
        "arm",
        "ms a step",
        "ratio to none",
        "goal",
        "share of the matrix product's MAC/s",
        "teacher asked, images a step",
        "peak memory MiB",
    )
    for arm in ARMS:
        mine = [row for row in rows if row["arm"] == arm.name and "seconds" in row]
        seconds = values(mine, "seconds")
        times = [1e3 * row["seconds"] / row["steps"] for row in mine]
        share = ratios(ratios(values(mine, "macs"), seconds), rates)
        ratio = ratios(seconds, plain)
        goal = "-"
        if arm.terms and not arm.online:
            goal = f"{LIMIT:.2f} {verdict(statistics.median(ratio) <= LIMIT)}"
        asked = sum(row["asked"] for row in mine) / sum(row["steps"] for row in mine)
        peak = [
            f"{row['peak_bytes'] / 2**20:.0f}"
            for row in rows
            if row["arm"] == arm.name and "peak_bytes" in row
        ]
        lines.append(
            f"| {arm.name} | {middle(times)} | {middle(ratio, 3) if arm.terms else '1'} | {goal} | "
            f"{middle(share, 3)} | {asked:.0f} | {''.join(peak) or '-'} |"
        )
    lines += ["", f"The matrix product: {middle([rate / 1e9 for rate in rates], 1)} GMAC/s."]
    return lines
