"""Shipped search spaces: how large they are, and whether what is drawn from them builds, trains and leaves.

    nice python benchmarks/shipped_spaces.py --samples 200 --json docs/data/shipped_spaces.json

For each space, random designs: their costs in closed form; then, one by one, the student is built and takes one step of
gradient descent on two random images with cross-entropy; then each is written as ONNX. Checked are: the counted costs
of the built network, a finite loss, a finite gradient at every parameter, and the logits that ONNX Runtime gives. How a
design is taught is not tried. Spaces take turns, so that a part of the samples is a part of each. Prints Markdown
tables. ``--resume`` goes on.
"""

import argparse
import gc
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution
from torch.nn import functional

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from naskd.networks.student import Student, build_student, design_cost
from naskd.nn.cost import network_cost
from naskd.nn.merging import merged
from naskd.nn.quantized import is_quantized
from naskd.runs.formats.base import Interface
from naskd.runs.formats.onnx import OnnxFormat
from naskd.spec.design import ArchitectureSpec
from naskd.spec.errors import USERS, one_line
from naskd.spec.userfile import import_file
from naskd.study.space_sample import SpaceSample, describe_range

FOLDER = Path(__file__).resolve().parents[1] / "search_spaces"
CLASSES = 10
PRICED = 1000
"""Random designs of a space whose costs are computed."""
TOLERANCE = 1e-4
"""Largest difference of a logit between torch and ONNX Runtime, relative to the largest logit."""
INTEGER_TOLERANCE = 0.05
"""The same where maps are rounded, and a sum may be rounded to the next integer."""


@dataclass(frozen=True)
class Shipped:
    """A space, and the images that it is for."""

    space: str
    channels: int
    side: int

    @property
    def function(self) -> Any:
        file, _, name = self.space.partition(":")
        return getattr(import_file(FOLDER / file), name)


SPACES = (
    Shipped("digits.py:joint", 1, 8),
    Shipped("integers.py:joint", 1, 8),
    Shipped("everything.py:joint", 1, 8),
    Shipped("cifar.py:joint", 3, 32),
    Shipped("from_teacher.py:joint", 3, 32),
    Shipped("small.py:joint", 3, 32),
    Shipped("blocks.py:joint", 3, 32),
    Shipped("blocks.py:transformers", 3, 32),
    Shipped("images_96.py:joint", 3, 96),
    Shipped("images_224.py:joint", 3, 224),
)


def main() -> None:
    args = arguments().parse_args()
    torch.set_num_threads(args.threads)
    gc.set_threshold(100_000, 20, 50)  # a graph on its way to a file is very many objects, all of them in use
    logging.disable(logging.WARNING)
    results = Results(args.json, args, machine.facts(("torch", "onnxruntime")), resume=args.resume)
    sizes: dict[str, Row] = results.found.setdefault("spaces", {})
    for shipped in SPACES:
        if shipped.space not in sizes:
            sizes[shipped.space] = priced(shipped)
            results.save()
    rows: list[Row] = results.found.setdefault("rows", [])
    done = {(row["part"], row["space"], row["number"]) for row in rows}
    students = {shipped: [student for _, student in drawn(shipped, args.samples)] for shipped in SPACES}
    for part, number, shipped in product(PARTS, range(args.samples), SPACES):
        if (part, shipped.space, number) not in done:
            rows.append(tried(part, shipped, students[shipped][number], number))
            results.save()
            if rows[-1]["failed"]:
                say(part, shipped.space, number, rows[-1]["failed"])
    print(machine.line(results.found), *tables(results.found), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    given.add_argument("--samples", type=int, default=200, help="designs of each space that are tried")
    given.add_argument("--threads", type=int, default=1)
    return given


def drawn(shipped: Shipped, n: int) -> Iterator[tuple[dict[str, BaseDistribution], ArchitectureSpec]]:
    """Students of random designs, always the same, with the parameters of the space."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(n):
        trial = study.ask()
        config = shipped.function(trial)
        yield trial.distributions, config.architecture


def priced(shipped: Shipped, n: int = PRICED) -> Row:
    """How large a space is, and what its students cost; parameters in the form of ``naskd space``."""
    students = list(drawn(shipped, n))
    parameters = students[0][0]
    costs = [design_cost(student, shipped.channels, CLASSES, shipped.side) for _, student in students]
    return {
        "priced": n,
        "parameters": {name: describe_range(found) for name, found in parameters.items()},
        "log10_size": SpaceSample([], [], parameters, n).log10_size,
        "macs": quantiles([cost.macs for cost in costs]),
        "n_params": quantiles([cost.n_params for cost in costs]),
    }


def quantiles(values: Sequence[int]) -> list[int]:
    """The smallest, the median, that which 99 of 100 do not exceed, and the largest."""
    ordered = sorted(values)
    return [ordered[0], int(statistics.median(ordered)), ordered[int(0.99 * (len(ordered) - 1))], ordered[-1]]


def tried(part: str, shipped: Shipped, design: ArchitectureSpec, number: int) -> Row:
    """One design in one of :data:`PARTS`."""
    begin = time.perf_counter()
    torch.manual_seed(number)
    try:
        failed = PARTS[part](shipped, design)
    except USERS as error:  # whatever it is, it is what is looked for
        failed = one_line(error)
    row: Row = {"part": part, "space": shipped.space, "number": number, "failed": failed}
    if failed:
        row["student"] = repr(design)
    return {**row, "seconds": round(time.perf_counter() - begin, 2)}


def built(shipped: Shipped, design: ArchitectureSpec) -> Student:
    channels = shipped.channels
    return build_student(design, channels, CLASSES, (0.5,) * channels, (0.25,) * channels)


def trained(shipped: Shipped, design: ArchitectureSpec) -> str:
    """What is wrong with a design's costs, or with its first step; empty where nothing is."""
    student, images = built(shipped, design), some_images(shipped)
    said = design_cost(design, shipped.channels, CLASSES, shipped.side)
    if (found := network_cost(student, shipped.channels, shipped.side)) != said:
        return f"its cost is {found}, the closed form says {said}"
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01)
    loss = functional.cross_entropy(student(images), torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]  # torch's is not annotated
    if not loss.isfinite():
        return f"its loss is {float(loss)}"
    for name, parameter in student.named_parameters():
        if parameter.grad is None or not parameter.grad.isfinite().all():
            return f"{name} has no finite gradient"
    optimizer.step()
    return "" if student(images).isfinite().all() else "its logits are not finite after the step"


def exported(shipped: Shipped, design: ArchitectureSpec) -> str:
    """How far ONNX Runtime's logits are off, where that is too far; empty where it is not."""
    student, images = built(shipped, design), some_images(shipped)
    student(images)  # layers of integers learn the ranges of their maps
    leaving = merged(student.eval())
    interface = Interface(tuple(map(str, range(CLASSES))), (shipped.channels, shipped.side, shipped.side))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "student.onnx"
        OnnxFormat().write(leaving, target, target, interface)
        there = OnnxFormat().load(target)(images)
    with torch.no_grad():
        here = leaving(images)
    off = float((here - there).abs().max() / here.abs().max().clamp(min=1))
    allowed = INTEGER_TOLERANCE if is_quantized(leaving) else TOLERANCE
    return "" if off <= allowed else f"ONNX Runtime's logits are {off:.2g} of the largest one away"


def some_images(shipped: Shipped) -> torch.Tensor:
    return torch.rand(2, shipped.channels, shipped.side, shipped.side)


PARTS: Mapping[str, Callable[[Shipped, ArchitectureSpec], str]] = {"trained": trained, "exported": exported}


def tables(found: Row) -> Iterator[str]:
    yield ""
    yield "| space | images | parameters | designs | MACs (median) | weights (median) |"
    yield "|---|---|---|---|---|---|"
    images = {shipped.space: f"{shipped.side}x{shipped.side}x{shipped.channels}" for shipped in SPACES}
    for space, row in found["spaces"].items():
        macs, weights = (
            f"{short(low)} to {short(most)} ({short(median)})"
            for low, median, most, _ in (row["macs"], row["n_params"])
        )
        size = f"10^{row['log10_size']:.0f}"
        yield f"| {space} | {images[space]} | {len(row['parameters'])} | {size} | {macs} | {weights} |"
    yield ""
    yield "| space | built and trained a step | exported | failed | seconds (medians) |"
    yield "|---|---|---|---|---|"
    for space in found["spaces"]:
        rows = [row for row in found["rows"] if row["space"] == space]
        parts = [[row for row in rows if row["part"] == part] for part in PARTS]
        failed = [f"{row['part']} {row['number']}: {row['failed']}" for row in rows if row["failed"]]
        seconds = (
            f"{statistics.median(row['seconds'] for row in part):.1f}" if part else "" for part in parts
        )
        counts = " | ".join(str(len(part)) for part in parts)
        yield f"| {space} | {counts} | {'; '.join(failed) or 0} | {', '.join(seconds)} |"


def short(value: float) -> str:
    """Two digits, with k, M or G."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{float(f'{value / scale:.2g}'):g} {unit}"
    return str(value)


if __name__ == "__main__":
    main()
