"""Teachers that naskd has not made, fine-tuned on real images at 96x96, teach students to a front.

    python benchmarks/found_teachers.py --images DIR --others DIR --out runs/found --json found_teachers.json

``--images`` and ``--others`` are folders of class folders; images are enlarged to 96x96. Four studies, each of them
written as a study file and searched:

- ``timm``: a model of timm by its name, from random weights;
- ``torchvision``: a model of torchvision that begins with a checkpoint of other classes. It is trained on ``--others``
  first, in plain PyTorch, so that nothing is downloaded;
- ``vit_to_cnn``: a transformer of timm teaches convolutional students, by hints and attention alone;
- ``cnn_to_vit``: the model of torchvision teaches transformers so.

Prints a Markdown table of each front. With ``--resume`` it goes on.
"""

import argparse
import hashlib
import inspect
import os
import time
from pathlib import Path

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say

SIDE = 96
STUDY = """\
name = "{name}"
space = "space.py:{space}"
epochs = {epochs}

[data]
kind = "image_folder"
root = "{images}"
resolution = {side}
val_fraction = {val_fraction}
test_fraction = 0.2
max_train = {train}

[teacher]
{teacher}

[teacher.training]
epochs = {teacher_epochs}
batch_size = 32
learning_rate = 2e-3
weight_decay = 0.05
augmentation = "flip_translate"

[budget]
trials = {trials}

[limits]
max_macs = {max_macs}

[execution]
device = "{device}"
threads = {threads}
"""
TEACHERS = {
    "timm": f'source = "timm"\nmodel = "mobilenetv3_small_050"\nresolution = {SIDE}',
    "torchvision": 'torchvision = "shufflenet_v2_x0_5"\ncheckpoint = "{others}"\nfine_tune = true\nhead_share = 0.3',
    "vit": 'source = "timm"\nmodel = "test_vit"',
}
STUDIES = {
    "timm": ("timm", "cnn"),
    "torchvision": ("torchvision", "cnn"),
    "vit_to_cnn": ("vit", "cnn_by_features"),
    "cnn_to_vit": ("torchvision", "vit_by_features"),
}
"""Teacher and function of ``found_parts/space.py``."""


def main() -> None:
    args = arguments().parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    results = Results(args.json, args, machine.facts(), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    for name in args.studies:
        if any(row["study"] == name for row in rows):
            continue
        rows.append(searched(name, args))
        results.save()
    print(machine.line(results.found), *report(rows), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    given.add_argument("--images", type=Path, required=True, help="folder of <class>/<name>.jpg")
    given.add_argument("--others", type=Path, required=True, help="the same, of other classes")
    given.add_argument("--out", type=Path, required=True)
    given.add_argument("--studies", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    given.add_argument("--train", type=int, default=1500)
    given.add_argument("--val-fraction", type=float, default=0.02)
    given.add_argument("--other-images", type=int, default=3000)
    given.add_argument("--other-epochs", type=int, default=3)
    given.add_argument("--teacher-epochs", type=int, default=8)
    given.add_argument("--epochs", type=int, default=5)
    given.add_argument("--trials", type=int, default=8)
    given.add_argument("--max-macs", type=float, default=8e6)
    given.add_argument("--device", default="cpu")
    given.add_argument("--threads", type=int, default=1)
    return given


def searched(name: str, args: argparse.Namespace) -> Row:
    """A study, searched to its front."""
    import naskd

    teacher, space = STUDIES[name]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "space.py").write_bytes((Path(__file__).parent / "found_parts" / "space.py").read_bytes())
    given = TEACHERS[teacher]
    if teacher == "torchvision":
        others = begun(args)
        given = given.replace("{others}", others.name)
        if not others.is_file():
            begin(args, others)
    study = args.out / f"{name}.toml"
    settings = {**vars(args), "images": args.images.resolve(), "name": name, "space": space, "side": SIDE}
    study.write_text(STUDY.format(**{**settings, "teacher": given}))
    began, cpu = time.perf_counter(), time.process_time()
    run = naskd.search(study, out=args.out / "runs" / name)
    record = run.to_dict(everything=True, with_importance=False)
    trained = [trial for trial in record["trials"] if trial["state"] != "PRUNED"]
    say(
        f"{name}: {time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of them on a processor"
    )
    return {
        "study": name,
        "teacher": record["teacher"],
        "trials": [{key: trial.get(key) for key in KEPT} for trial in trained],
        "front": [trial["number"] for trial in run.front()],
        "turned_away": len(record["trials"]) - len(trained),
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "warnings": record["warnings"],
    }


KEPT = ("number", "state", "reason", "macs", "n_params", "val_accuracy", "wall_seconds", "config")


def begun(args: argparse.Namespace) -> Path:
    """The file of weights of other classes, named by all that they follow from: others are another file."""
    images = [
        (str(file.relative_to(args.others)), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(args.others.glob("*/*"))
    ]
    said = repr([images, args.other_images, args.other_epochs, args.threads, SIDE, inspect.getsource(begin)])
    return Path(args.out / f"others_{hashlib.sha256(said.encode()).hexdigest()[:12]}.pt")


def begin(args: argparse.Namespace, path: Path) -> None:
    """Weights of other classes, as somebody else might have left them."""
    import torch
    import torch.nn.functional as F
    import torchvision
    from torchvision.transforms import v2

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    change = v2.Compose([v2.ToImage(), v2.Resize(SIDE), v2.ToDtype(torch.float32, scale=True)])
    images = torchvision.datasets.ImageFolder(args.others, change)
    places = torch.randperm(len(images))[: args.other_images].tolist()
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=len(images.classes))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    loader = torch.utils.data.DataLoader(torch.utils.data.Subset(images, places), 32, shuffle=True)
    for epoch in range(args.other_epochs):
        for batch, labels in loader:
            optimizer.zero_grad()
            # About as naskd gives a network of torchvision its images.
            F.cross_entropy(network((batch - 0.5) / 0.25), labels).backward()
            optimizer.step()
        say(f"{len(places):,} images of {len(images.classes)} other classes, epoch {epoch + 1}")
    part = path.with_suffix(".part")
    torch.save(network.state_dict(), part)
    os.replace(part, path)


def report(rows: list[Row]) -> list[str]:
    """A line for each student of each front."""
    lines = [
        "| study | teacher: MACs, validation accuracy | minutes | failed | front: MACs, accuracy, taught by |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        teacher, trials = row["teacher"], {trial["number"]: trial for trial in row["trials"]}
        front = "; ".join(
            f"{trials[n]['macs']:,}, {trials[n]['val_accuracy']:.3f}, {taught(trials[n]['config'])}"
            for n in row["front"]
        )
        failed = sum(trial["state"] == "FAIL" for trial in row["trials"])
        lines.append(
            f"| `{row['study']}` | {teacher['macs']:,}, {teacher['val_accuracy']:.3f} | {row['seconds'] / 60:.1f} | "
            f"{failed} of {len(trials)} | {front} |"
        )
    return lines


def taught(config: Row) -> str:
    kinds = [term["kind"] for term in config["distillation"].get("terms", ())]
    return " + ".join(f"`{kind}`" for kind in kinds) or "labels"


if __name__ == "__main__":
    main()
