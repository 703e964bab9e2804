"""Students that leave: are their files as accurate where there is no naskd, and what do 8-bit integers cost?

    python benchmarks/leaving.py --images cifar10-train.zip --out runs/leaving --onnxruntime ort/bin/python \
        --openvino ov/bin/python --json leaving.json

Three small studies: digits of 8x8 pixels, CIFAR-10 of 32x32, and mosaics of 96x96, each nine different images of one
class of CIFAR-10 side by side. No pixel is made up or scaled. In each, two designs are searched, retrained with further
seeds and exported. Their test images are written as PNG files. Two Python environments read them: one with onnxruntime,
numpy and pillow, one with openvino, numpy and pillow. Neither has anything else. Prints a Markdown table. With
``--resume`` it goes on.
"""

import argparse
import io
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say

ALONE = Path(__file__).parent / "leaving_parts" / "openvino_alone.py"
FORMATS = {"openvino": ".xml", "pt2": ".pt2", "executorch": ".pte", "litert": ".tflite"}
"""Beside those of a folder, with their suffixes. The last wants an environment of its own: docs/guides/deploying.md."""
RUNTIMES = {"openvino": "openvino", "executorch": "executorch", "litert": "ai-edge-litert"}
"""Packages whose versions count, by format."""
CHUNK = 500
"""Files that one call of a script is given."""

SPACE = '''\
"""Two networks of three stages, taught by logits where there is a teacher."""

from naskd.config import ArchitectureSpec, DistillationSpec, KnowledgeTerm, StageSpec, TrainingSpec, TrialConfig

WIDTHS, STEM, TAUGHT, EPOCHS = {widths}, {stem}, {taught}, {epochs}


def two(trial):
    block = trial.suggest_categorical("block", ["basic", "inverted_residual"])
    stages = tuple(
        StageSpec(block, 1, width, stride=2, **({{"expansion": 3.0}} if block != "basic" else {{}}))
        for width in WIDTHS
    )
    terms = (KnowledgeTerm("logits", temperature=4.0),) if TAUGHT else ()
    training = TrainingSpec(epochs=EPOCHS, batch_size=64)
    return TrialConfig(ArchitectureSpec(stages, stem_width=STEM), DistillationSpec(terms), training)
'''

STUDY = """\
name = "{name}"
space = "{name}_space.py:two"
epochs = {epochs}
{data}
[budget]
trials = 2
max_turned_away = 20

[retrain]
seeds = {seeds}
"""

TEACHER = """
[teacher.architecture]
stem_width = 16
stages = [{block = "basic", depth = 1, width = 32, stride = 2}, {block = "basic", depth = 1, width = 64, stride = 2}]

[teacher.training]
epochs = 10
"""


def main() -> None:
    args = arguments().parse_args()
    runtimes = sorted({RUNTIMES[form] for form in args.formats if form in RUNTIMES})
    results = Results(args.json, args, machine.facts(("torch", "onnxruntime", *runtimes)), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    for name in args.studies:
        if name not in {row["study"] for row in rows}:
            rows.extend(measured(name, args))
            results.save()
    print(machine.line(results.found), *table(rows), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    given.add_argument("--images", type=Path, required=True, help="zip file of <class>/<name>.jpg")
    given.add_argument("--out", type=Path, required=True, help="folder of studies, runs and exports")
    given.add_argument(
        "--onnxruntime", type=Path, required=True, help="a Python with onnxruntime, numpy, pillow"
    )
    given.add_argument("--openvino", type=Path, required=True, help="a Python with openvino, numpy, pillow")
    given.add_argument("--studies", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    given.add_argument("--per-class", type=int, default=150, help="images of CIFAR-10 of each class")
    given.add_argument("--mosaics", type=int, default=60, help="mosaics of each class")
    given.add_argument(
        "--formats",
        nargs="+",
        default=list(FORMATS)[:-1],
        choices=list(FORMATS),
        help="beside those of a folder",
    )
    given.add_argument("--epochs", type=int, default=12)
    given.add_argument("--seeds", type=int, default=2)
    return given


def of_digits(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    return '\n[data]\nkind = "digits"\n' + TEACHER, {"widths": (16, 32), "stem": 8, "taught": True}


def of_cifar(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    root = args.out / "cifar"
    with zipfile.ZipFile(args.images) as file:
        for name, members in by_class(file).items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for member in members[: args.per_class]:
                (root / name / Path(member).name).write_bytes(file.read(member))
    return '\n[data]\nkind = "image_folder"\nroot = "cifar"\n', {
        "widths": (16, 32, 64),
        "stem": 16,
        "taught": False,
    }


def of_mosaics(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from PIL import Image

    root = args.out / "mosaics"
    with zipfile.ZipFile(args.images) as file:
        for name, members in by_class(file).items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for n in range(args.mosaics):
                mosaic = Image.new("RGB", (96, 96))
                # Other images than those of the study of 32x32; none is in two mosaics.
                for tile, member in enumerate(members[::-1][9 * n : 9 * n + 9]):
                    with Image.open(io.BytesIO(file.read(member))) as image:
                        mosaic.paste(image.convert("RGB"), (32 * (tile % 3), 32 * (tile // 3)))
                mosaic.save(root / name / f"{n:04}.png")
    return '\n[data]\nkind = "image_folder"\nroot = "mosaics"\n', {
        "widths": (16, 32, 64),
        "stem": 16,
        "taught": False,
    }


STUDIES = {"digits": of_digits, "cifar": of_cifar, "mosaics": of_mosaics}


def by_class(file: zipfile.ZipFile) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(file.namelist()):
        if name.endswith(".jpg"):
            found.setdefault(Path(name).parent.name, []).append(name)
    return found


def measured(name: str, args: argparse.Namespace) -> Iterator[Row]:
    """A row for each design of a study."""
    import naskd

    args.out.mkdir(parents=True, exist_ok=True)
    data, space = STUDIES[name](args)
    (args.out / f"{name}_space.py").write_text(SPACE.format(**space, epochs=args.epochs))
    study = args.out / f"{name}.toml"
    study.write_text(STUDY.format(name=name, data=data, epochs=args.epochs, seeds=args.seeds))
    run = naskd.search(study, out=args.out / "runs" / name)
    numbers = [trial["number"] for trial in run.trials() if trial["state"] == "COMPLETE"]
    designs = {design["number"]: design for design in run.retrain(numbers)["designs"]}
    for number in numbers:
        say(name, number)
        yield {"study": name, "trial": number, **of_design(run, number, designs[number], args)}


def of_design(run: Any, number: int, design: Row, args: argparse.Namespace) -> Row:
    """What its files say, here and elsewhere."""
    from naskd.report.summary import student
    from naskd.runs.retrain import opened_test

    place = args.out / "exports" / f"{run.spec.name}{number}"
    test, names = opened_test(run.context), run.context.resources.data.class_names
    files = written(test.images, place / "images")
    labels = [names[label] for label in test.labels]
    row: Row = {
        "student": student(run.trial(number)["config"]),
        "macs": design["macs"],
        "n_params": design["n_params"],
        "image": tuple(test.images.shape[1:]),
        "n_test": len(labels),
        "test_accuracy_mean": design["test_accuracy_mean"],
        "test_accuracy_sd": design["test_accuracy_sd"],
        "seeds": design["n"],
    }
    for kind in ("float", "int8"):
        folder = place / kind
        made = run.export(number, folder=folder, int8=kind == "int8")
        row["original_accuracy"] = made["original_accuracy"]
        alone = said([args.onnxruntime, folder / "predict.py"], files)
        row[kind] = {
            "accuracy_here": made["accuracy"],
            "agreement_here": made["agreement"],
            "bytes": made["size_bytes"],
            "accuracy_onnxruntime_alone": share(alone, labels),
            "accuracy_openvino_alone": share(
                said([args.openvino, ALONE, folder / "model.onnx"], files), labels
            ),
        }
    for form in args.formats:
        file = place / f"model{FORMATS[form]}"
        made = run.export(number, form, file)
        row[form] = {"accuracy_here": made["accuracy"], "bytes": made["size_bytes"]}
        if form == "openvino":
            row[form]["accuracy_openvino_alone"] = share(said([args.openvino, ALONE, file], files), labels)
    return row


def written(images: Any, folder: Path) -> list[Path]:
    """Each image as a PNG file."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n:05}.png" for n in range(len(images))]
    for image, file in zip(images.numpy(), files, strict=True):
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file)
    return files


def said(command: Sequence[Path], files: Sequence[Path]) -> list[str]:
    """The classes that a script in another environment says; it sees nothing of this one's."""
    found = []
    for start in range(0, len(files), CHUNK):
        words = [*map(str, command), *map(str, files[start : start + CHUNK])]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"})
        found += [line.split("\t")[1] for line in done.stdout.splitlines()]
    return found


def share(found: Sequence[str], labels: Sequence[str]) -> float:
    return sum(one == other for one, other in zip(found, labels, strict=True)) / len(labels)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Accuracy of each file by who reads it, and its bytes."""
    readers = (
        ("PyTorch", ("original_accuracy",)),
        ("`.onnx`, ONNX Runtime alone", ("float", "accuracy_onnxruntime_alone")),
        ("`.xml`, OpenVINO alone", ("openvino", "accuracy_openvino_alone")),
        ("`.pt2`", ("pt2", "accuracy_here")),
        ("`.pte`", ("executorch", "accuracy_here")),
        ("`.tflite`", ("litert", "accuracy_here")),
        ("int8 `.onnx`, ONNX Runtime alone", ("int8", "accuracy_onnxruntime_alone")),
        ("the same, OpenVINO alone", ("int8", "accuracy_openvino_alone")),
    )
    sizes = (
        ("`.onnx`", "float"),
        ("int8 `.onnx`", "int8"),
        *((f"`{FORMATS[form]}`", form) for form in FORMATS),
    )
    yield "### Accuracy on test images\n"
    yield f"| images | student (MACs) | mean ± sd (seeds) | {' | '.join(name for name, _ in readers)} |"
    yield "|" + "---|" * (3 + len(readers))
    for row in rows:
        sd = row["test_accuracy_sd"]
        spread = "" if sd is None else f" ± {sd:.4f}"
        cells = [
            *_what(row),
            f"{row['test_accuracy_mean']:.4f}{spread} ({row['seeds']})",
            *(_number(row, path, ".4f") for _, path in readers),
        ]
        yield f"| {' | '.join(cells)} |"
    yield "\n### Bytes\n"
    yield f"| images | student (MACs) | {' | '.join(name for name, _ in sizes)} |"
    yield "|" + "---|" * (2 + len(sizes))
    for row in rows:
        cells = [*_what(row), *(_number(row, (form, "bytes"), ",") for _, form in sizes)]
        yield f"| {' | '.join(cells)} |"


def _what(row: Row) -> tuple[str, str]:
    channels, height, width = row["image"]
    images = f"{row['n_test']} of {row['study']}, {width}x{height}x{channels}"
    return images, f"{row['student']} ({row['macs']:,})"


def _number(row: Row, path: Sequence[str], form: str) -> str:
    found: Any = row
    for key in path:
        found = found.get(key) if found is not None else None
    return "–" if found is None else format(found, form)


if __name__ == "__main__":
    main()
