"""Generated data sets in the real formats on disk."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_images(
    root: Path, per_class: dict[str, int], *, mode: str = "RGB", size=(10, 10), suffix=".png"
) -> None:
    """Random images, ``root/<class>/<number><suffix>``; no two are alike. `size` is (width, height)."""
    for name, count in per_class.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            digest = hashlib.sha256(
                f"{root.name}/{name}/{number}".encode("utf-8", "surrogateescape")
            ).digest()
            rng = np.random.default_rng(list(digest[:8]))
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{number:03d}{suffix}")


def write_cifar10(root: Path, per_batch: int = 20, n_test: int = 30) -> dict[str, str]:
    """CIFAR-10's python files with few images; returns the MD5 of each file."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    hashes = {}
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]
    for name in names:
        count = n_test if name == "test_batch" else per_batch
        content = {
            "batch_label": name,
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            "labels": [number % 10 for number in range(count)],
            "filenames": [f"{number}.png" for number in range(count)],
        }
        if name == "batches.meta":
            content = {"label_names": list(CIFAR_CLASSES), "num_vis": 3072, "num_cases_per_batch": per_batch}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        hashes[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    return hashes
