"""Small images of three classes, by colour: PNG and JPEG."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"apple": (200, 30, 40), "berry": (40, 40, 200), "cherry": (90, 180, 60)}
EACH = 8
SIDE = 16


def picture(name: str, number: int, side: int = SIDE) -> Image.Image:
    """An image of a class: its colour with noise."""
    draw = np.random.default_rng([len(name), number, *name.encode()])
    noise = draw.integers(-25, 26, (side, side, 3))
    return Image.fromarray(np.clip(np.asarray(CLASSES[name]) + noise, 0, 255).astype(np.uint8))


def write_folder(root: Path, each: int = EACH, first: int = 0) -> list[Path]:
    """``root/<class>/<number>.png`` and ``.jpg``; all files."""
    files = []
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(first, first + each):
            files.append(root / name / f"{number}.{('png', 'jpg')[number % 2]}")
            picture(name, number).save(files[-1])
    return files


def chosen(files: list[Path], seed: int, suffix: str = "") -> Path:
    """One of them."""
    return random.Random(f"chosen-{seed}").choice([f for f in files if f.suffix.endswith(suffix)])
