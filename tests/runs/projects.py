"""A small project of images: a study, its space, its images and a run of one trial."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

import naskd

STUDY = """\
name = "img"
space = "space.py:joint"
modules = ["blocks.py"]
epochs = 1

[data]
kind = "image_folder"
root = "images"

[budget]
trials = 1

[retrain]
seeds = 1
"""
SPACE = """\
from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig


def joint(trial):
    width = trial.suggest_int("width", 4, 16)
    stages = (StageSpec("mine", 1, width, stride=2),)
    return TrialConfig(ArchitectureSpec(stages, stem_width=4), DistillationSpec(), TrainingSpec(epochs=1, batch_size=8))
"""
BLOCKS = """\
from naskd.networks import BLOCKS
from naskd.networks.blocks.basic import Basic
from naskd.networks.card import BlockCard


class Mine(Basic):
    pass


if "mine" not in BLOCKS:
    BLOCKS.register(BlockCard("mine", "mine", "", Mine, False, False))
"""


def images(folder: Path, n: int = 10, seed: int = 0) -> None:
    """`n` noisy images of 8x8 for each of two classes."""
    draw = np.random.default_rng(seed)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(n):
            pixels = draw.integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:02d}.png")


def project(folder: Path) -> Path:
    """Write one, without a run; the path of its study file."""
    folder.mkdir(parents=True, exist_ok=True)
    images(folder / "images")
    (folder / "img.toml").write_text(STUDY)
    (folder / "space.py").write_text(SPACE)
    (folder / "blocks.py").write_text(BLOCKS)
    return folder / "img.toml"


def searched(folder: Path) -> Path:
    """One with its run; the run directory."""
    naskd.search(project(folder), out=folder / "runs" / "img")
    return folder / "runs" / "img"


def copied(run_dir: Path, folder: Path) -> Path:
    """A copy of a project, given by its run, elsewhere; the run directory there."""
    shutil.copytree(run_dir.parents[1], folder)
    return folder / "runs" / "img"
