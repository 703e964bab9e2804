"""The first hour of a new user: own images of three sizes, the space of ``naskd init``, up to an exported model.

    python benchmarks/first_hour.py --json first_hour.json
    python benchmarks/first_hour.py --sides 32 --executor processes

For each size a folder of shapes is drawn, PNG and JPEG, of unequal sizes. ``naskd init`` writes the study, and its
README is followed: ``kind``, ``root`` and ``resolution`` are set, and ``limits.max_macs`` is raised. Then check, space,
dry run, search, front, best, retrain, export. What was exported is read with ``naskd.load`` and by onnxruntime, and
classifies images that were drawn later.

It fails at the first command that does, and says which. Its figures are the seconds of each step.
"""

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image, ImageDraw

import naskd
from harness.arguments import parser

CLASSES = ("circle", "cross", "square")


@dataclass(frozen=True)
class Size:
    """What is affordable on two CPU cores.

    Args:
        side: Of the images after resizing, in pixels.
        each: Images of a class.
        epochs: Of students, teacher and final trainings.
        trials: Of the search.
    """

    side: int
    each: int
    epochs: int
    trials: int


SIZES = {size.side: size for size in (Size(32, 80, 8, 12), Size(64, 60, 5, 8), Size(224, 30, 2, 4))}


def draw(name: str, side: int, seed: int) -> Image.Image:
    """A shape of a class on a noisy ground, of any colours and any size."""
    dice = random.Random(f"{name}-{side}-{seed}")
    width, height = (round(side * dice.uniform(0.8, 1.5)) for _ in range(2))
    noise = np.random.default_rng(dice.getrandbits(32)).normal(0, 20, (height, width, 3))
    ground = np.asarray([dice.randrange(80) for _ in range(3)])
    image = Image.fromarray(np.clip(ground + noise, 0, 255).astype(np.uint8))
    pencil = ImageDraw.Draw(image)
    ink = tuple(dice.randrange(150, 256) for _ in range(3))
    radius = dice.uniform(0.2, 0.3) * min(width, height)
    x, y = (dice.uniform(0.4, 0.6) * length for length in (width, height))
    box = (x - radius, y - radius, x + radius, y + radius)
    if name == "circle":
        pencil.ellipse(box, fill=ink)
    elif name == "square":
        pencil.rectangle(box, fill=ink)
    else:
        thick = max(2, round(radius / 3))
        pencil.line((box[0], box[1], box[2], box[3]), fill=ink, width=thick)
        pencil.line((box[0], box[3], box[2], box[1]), fill=ink, width=thick)
    return image


def write_images(root: Path, size: Size) -> None:
    """One folder for each class."""
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for seed in range(size.each):
            draw(name, size.side, seed).save(root / name / f"{seed:03}.{('png', 'jpg')[seed % 2]}")


def edit(study: Path, size: Size) -> None:
    """What README.md of `naskd init` says, and a budget for a try."""
    text = study.read_text()
    # At most what a phone's network costs: at 224 pixels more would take tens of minutes on two cores.
    max_macs = min(2e6 * (size.side / 8) ** 2, 3e8)
    changes = {
        r'kind = "digits"': f'kind = "image_folder"\nroot = "images"\nresolution = {size.side}',
        r"max_macs = \S+": f"max_macs = {max_macs:g}",
        r"(?m)^trials = \d+": f"trials = {size.trials}",
        r"(?m)^epochs = \d+": f"epochs = {size.epochs}",
        r"(?m)^seeds = \d+": "seeds = 2",
    }
    for old, new in changes.items():
        text, n = re.subn(old, new, text)
        assert n, f"the study file of naskd init has no {old}"
    study.write_text(text)


class Hour:
    """The commands of one size, in a folder of their own.

    Args:
        size: Of the images.
        executor: None leaves what `naskd init` says.
    """

    def __init__(self, size: Size, executor: str | None) -> None:
        self.size = size
        self.executor = executor
        self.seconds: dict[str, float] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="naskd-hour-"))

    def naskd(self, *words: object, step: str = "") -> str:
        """A command, timed; its standard output.

        Raises:
            SystemExit: It failed; also by a signal.
        """
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "naskd", *map(str, words)],
            cwd=self.folder / "my-study" if words[0] != "init" else self.folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
        )
        self.seconds[step or str(words[0])] = time.monotonic() - started
        if done.returncode != 0:
            sys.exit(
                f"{self.size.side}x{self.size.side}: naskd {' '.join(map(str, words))} ended with {done.returncode}\n"
                f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\nkept: {self.folder}"
            )
        return done.stdout

    def run(self) -> dict[str, Any]:
        """All of them; what came out."""
        executor = () if self.executor is None else ("--executor", self.executor)
        self.naskd("init", "my-study")
        study = self.folder / "my-study" / "study.toml"
        write_images(study.parent / "images", self.size)
        edit(study, self.size)
        self.naskd("check", "study.toml")
        self.naskd("space", "study.toml")
        self.naskd("search", "study.toml", "--dry-run", step="dry run")
        self.naskd("search", "study.toml", *executor)
        record = json.loads(self.naskd("front", "runs/my-study", "--json", "--all", step="front"))
        assert record["counts"]["complete"] == self.size.trials, record["counts"]
        most = max(trial["macs"] for trial in record["trials"] if trial["on_front"])
        best = json.loads(self.naskd("best", "runs/my-study", "--max-macs", most, "--json", step="best"))
        self.naskd("retrain", "runs/my-study", best["number"], step="retrain")
        exported = {}
        for form in ("safetensors", "onnx"):
            said = self.naskd(
                "export", "runs/my-study", best["number"], "--format", form, step=f"export {form}"
            )
            exported[form] = study.parent / said.strip().splitlines()[-1]
        return {
            "side": self.size.side,
            "trials": self.size.trials,
            "best_val_accuracy": best["val_accuracy"],
            "macs": best["macs"],
            "accuracy_of_new_images": self.classify(exported),
            "seconds": self.seconds,
        }

    def classify(self, exported: dict[str, Path]) -> float:
        """The fraction of new images that both exported models classify, as one, rightly."""
        images, labels = [], []
        for label, name in enumerate(CLASSES):
            for seed in range(1000, 1020):
                images.append(_fit(draw(name, self.size.side, seed), self.size.side))
                labels.append(label)
        inputs = np.stack(images)
        with torch.no_grad():
            ours = naskd.load(exported["safetensors"])(torch.from_numpy(inputs)).numpy()
        session = onnxruntime.InferenceSession(str(exported["onnx"]), providers=["CPUExecutionProvider"])
        (theirs,) = session.run(None, {session.get_inputs()[0].name: inputs})
        assert np.abs(ours - theirs).max() < 1e-3 * max(1.0, np.abs(ours).max()), (
            "the two exported models differ"
        )
        return float((ours.argmax(1) == np.asarray(labels)).mean())


def _fit(image: Image.Image, side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As a user would: the shorter side resized, the centre cropped, ``(3, side, side)`` in [0, 1]."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR).crop(
        (left, top, left + side, top + side)
    )
    return (np.asarray(image, np.float32) / 255).transpose(2, 0, 1)


def table(results: list[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: seconds of each step by size."""

    def row(name: str, values: Iterable[str]) -> str:
        return f"| {name} | {' | '.join(values)} |"

    lines = [row("", (f"{r['side']}x{r['side']}" for r in results)), row("---", ("---" for _ in results))]
    lines.append(row("trials", (str(r["trials"]) for r in results)))
    lines += [row(step, (f"{r['seconds'][step]:.1f} s" for r in results)) for step in results[0]["seconds"]]
    lines.append(row("all", (f"{math.fsum(r['seconds'].values()):.0f} s" for r in results)))
    return lines


def main() -> None:
    """Each size after the other."""
    command = parser(__doc__, json=False)
    command.add_argument("--sides", type=int, nargs="+", choices=sorted(SIZES), default=sorted(SIZES))
    command.add_argument("--executor", help="default: what naskd init says")
    command.add_argument("--json", type=Path, help="file for all figures")
    arguments: argparse.Namespace = command.parse_args()
    results = []
    for side in arguments.sides:
        results.append(Hour(SIZES[side], arguments.executor).run())
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))
        print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
