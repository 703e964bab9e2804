"""Writes a study of real images with a teacher that has seen other ones, for comparisons that really train.

    python benchmarks/live_study.py --images cifar10-train.zip --table runs/tables/cifar10 --out runs/live
    python benchmarks/joint.py --study runs/live/study.toml --out runs/live/joint ...

The teacher is that of a recorded table (``benchmarks/record_table.py``). Students are trained and validated on images
that it has not seen, so that nothing leaks. Test images are the table's, which neither has seen.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from harness.arguments import parser
from harness.results import say

TEACHER = '''"""The teacher of the recorded table; it normalises images itself."""

from naskd.config import ArchitectureSpec, StageSpec
from naskd.networks.student import build_student


def build():
    return build_student({spec!r}, 3, {classes}, {mean}, {std})
'''

STUDY = """# Written by benchmarks/live_study.py: {n_train:,} images to train on and {n_val:,} to search by.
# The teacher saw {seen:,} others.

name = "live"
space = "{space}"
epochs = {epochs}

[data]
kind = "image_folder"
root = "train"
test_root = "test"
resolution = 32
val_fraction = {val_fraction}

[teacher]
builder = "teacher.py:build"
checkpoint = "teacher.safetensors"
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
saw = "other"

[budget]
trials = 60

[execution]
threads = 1
"""


def main() -> None:
    given = parser(__doc__, json=False)
    given.add_argument("--images", type=Path, required=True, help="zip file of <class>/<name>.jpg")
    given.add_argument("--table", type=Path, required=True, help="folder of a recording, with its teacher")
    given.add_argument("--out", type=Path, required=True)
    given.add_argument("--train-images", type=int, default=2500)
    given.add_argument("--val-images", type=int, default=2000)
    given.add_argument("--epochs", type=int, default=8)
    given.add_argument("--space", default="search_spaces/cifar.py:joint")
    write(given.parse_args())


def write(args: argparse.Namespace) -> None:
    from table_parts import space, splits
    from table_parts.recording import Recorder

    recorded = json.loads((args.table / "recording.json").read_text())["arguments"]
    sizes = splits.Splits(*(recorded[f"{part}_images"] for part in ("student", "teacher", "val", "test")))
    images, labels, classes = splits.read(args.images, args.table / "images.npz")
    order = splits.even_order(labels, len(classes))
    used = sizes.val + sizes.test + max(sizes.student, sizes.teacher)
    fresh = order[used : used + args.train_images + args.val_images]
    if len(fresh) < args.train_images + args.val_images:
        raise SystemExit(f"{len(order) - used:,} images are left that the teacher has not seen")
    args.out.mkdir(parents=True, exist_ok=True)
    save(args.out / "train", images, labels, classes, fresh)
    save(args.out / "test", images, labels, classes, order[sizes.val : sizes.val + sizes.test])
    settings = argparse.Namespace(**{**recorded, "threads": 1, "execution": []})
    recorder = Recorder(settings, splits.cut(images, labels, classes, sizes), args.table)
    context = recorder.setting.context
    state, _ = context.resources.store.load(context.prerequisites.teacher().artifact_id)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, args.out / "teacher.safetensors")
    data = recorder.parts.student
    mean, std = ([round(float(value), 6) for value in values] for values in (data.mean, data.std))
    (args.out / "teacher.py").write_text(
        TEACHER.format(spec=space.TEACHER, classes=len(classes), mean=mean, std=std)
    )
    root = Path(__file__).resolve().parents[1]
    shutil.copy(root / args.space.rpartition(":")[0], args.out / "space.py")
    (args.out / "study.toml").write_text(
        STUDY.format(
            n_train=args.train_images,
            n_val=args.val_images,
            seen=sizes.teacher,
            space=f"space.py:{args.space.rpartition(':')[2]}",
            epochs=args.epochs,
            val_fraction=round(args.val_images / len(fresh), 4),
        )
    )
    say(f"{args.out / 'study.toml'}: {len(fresh):,} images that the teacher has not seen")


def save(
    folder: Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    places: NDArray[np.int64],
) -> None:
    """Write images as PNG files, a folder for each class."""
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for place in places:
        Image.fromarray(images[place].transpose(1, 2, 0)).save(
            folder / classes[labels[place]] / f"{place:05d}.png"
        )


if __name__ == "__main__":
    main()
