"""Generated data sets in the real formats on disk."""

import csv
import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

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


def write_cifar100(root: Path, n_train: int = 400, n_test: int = 200) -> dict[str, str]:
    """CIFAR-100's python files with few images; returns the MD5 of each file."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    rng, hashes = np.random.default_rng(4), {}
    for name, count in (("train", n_train), ("test", n_test), ("meta", 0)):
        content = {
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            "fine_labels": [number % 100 for number in range(count)],
            "coarse_labels": [number % 20 for number in range(count)],
        }
        if name == "meta":
            content = {"fine_label_names": [f"class {number}" for number in range(100)]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        hashes[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    return hashes


def _listed(images: Path) -> list[Path]:
    """All images of a folder by class and name, which is the order of every container."""
    return sorted(images.rglob("*.png"))


def write_csv(images: Path, table: Path, *, splits=None, delimiter=",", names=("path", "label")) -> None:
    """A table of all images of a folder, relative to its own."""
    with open(table, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow([*names, *(["split"] if splits else [])])
        for number, path in enumerate(_listed(images)):
            row = [path.relative_to(table.parent), path.parent.name]
            writer.writerow([*row, *([splits[number % len(splits)]] if splits else [])])


def write_shards(images: Path, folder: Path, *, per_shard: int = 9) -> None:
    """WebDataset shards of all images of a folder; their labels are names of classes."""
    folder.mkdir()
    paths = _listed(images)
    for start in range(0, len(paths), per_shard):
        with tarfile.open(folder / f"{start:06d}.tar", "w") as tar:
            for number, path in enumerate(paths[start : start + per_shard]):
                for suffix, content in ((".png", path.read_bytes()), (".cls", path.parent.name.encode())):
                    member = tarfile.TarInfo(f"{start + number:05d}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def _rows(images: Path, labels, class_names):
    paths = _listed(images)
    if labels is None:
        labels = [path.parent.name for path in paths]
        labels = labels if class_names is None else list(map(class_names.index, labels))
    content = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    features = {"image": {"_type": "Image"}}
    if class_names is not None:
        features["label"] = {"names": list(class_names), "_type": "ClassLabel"}
    table = pyarrow.table({"image": content, "label": labels})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return table.replace_schema_metadata(metadata), features


def write_parquet(images: Path, file: Path, *, labels=None, class_names=None) -> None:
    """Parquet as Hugging Face's Hub has it, of all images of a folder, in groups of five rows."""
    file.parent.mkdir(exist_ok=True)
    parquet.write_table(_rows(images, labels, class_names)[0], file, row_group_size=5)


def write_saved(images: Path, folder: Path, *, class_names=None) -> None:
    """What ``Dataset.save_to_disk`` of Hugging Face's datasets writes, of all images of a folder, in two files."""
    folder.mkdir(parents=True)
    table, features = _rows(images, None, class_names)
    names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
    for number, name in enumerate(names):
        part = table.slice(number * 9, 9)
        with pyarrow.ipc.new_stream(str(folder / name), part.schema) as stream:
            stream.write_table(part, max_chunksize=4)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_files": None, "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


def write_arrays(images: Path, place: Path) -> None:
    """All images of a folder as arrays: an .npz, or a folder of .npy where the place has no ending."""
    paths = _listed(images)
    arrays = {
        "images": np.stack([np.asarray(Image.open(path)) for path in paths]),
        "labels": np.array([path.parent.name for path in paths]),
    }
    if place.suffix:
        np.savez(place, **arrays)
        return
    place.mkdir()
    for name, array in arrays.items():
        np.save(place / f"{name}.npy", array)
