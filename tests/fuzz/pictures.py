"""Small images of three classes, by colour: PNG and JPEG."""

import random
import struct
import zlib
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


def png(width: int, height: int, pixels: bytes = b"", depth: int = 8, kind: int = 2) -> bytes:
    """A PNG whose header says what is given, whatever its pixels are."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )
