"""Measures how long students of a study's space take on a device, and fits what predicts it: a profile file.

Each student has weights that were never trained: they do not change how long it takes. Students are timed in turn, one
image at a time, in several rounds of another order each. The latency of a student is its fastest run: what the device
can do where nobody else disturbs it.
"""

import dataclasses
import datetime
import json
import math
import random
import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from naskd.networks.student import build_student, design_cost, design_operators
from naskd.networks.student_file import load_student, probe_shape
from naskd.nn.cost import network_cost
from naskd.nn.merging import merged
from naskd.nn.quantized import is_quantized
from naskd.runs.devices import Device, Timer
from naskd.runs.formats.base import Interface
from naskd.runs.formats.onnx import OnnxFormat
from naskd.runs.opening import OpenStudy, open_study
from naskd.spec.design import ArchitectureSpec
from naskd.spec.devices import DEVICES
from naskd.spec.errors import InputError, RunError
from naskd.spec.latency import HeldOutStudent, LatencyProfile, work_of
from naskd.spec.objectives import ACCURACY, OBJECTIVES
from naskd.spec.option import OptionValue
from naskd.spec.outputs import usable_folder, writable
from naskd.spec.packages import lacks
from naskd.spec.parse import parse_study
from naskd.spec.sizes import sides
from naskd.spec.study import StudySpec
from naskd.store.files import replacing

STUDENTS, HELD_OUT, ROUNDS = 200, 100, 15
BLOCKS = (1, 4, 8, 16, 32)
"""Channels of a block that are tried."""
FOLDS = 5
DRAWN_FOR_EACH = 4
"""Designs that are drawn for each student, so that those that are timed can be spread."""
LEAST_OF_A_KIND = 3
"""Students of the fit that have an operator of each kind, where so many were drawn."""
LEAST_STUDENTS = 20

_TRUTHS = {"true": True, "false": False}
"""As TOML writes them; any text that is not empty would count as true."""

Observe = Callable[[int, int, str], None]
"""Is told what is done, of how much, and what comes next."""


def profile(
    study: str | Path,
    settings: Sequence[str] = (),
    *,
    out: Path | None = None,
    device: str = "onnxruntime",
    options: Mapping[str, OptionValue] | Sequence[str] = (),
    students: int = STUDENTS,
    held_out: int = HELD_OUT,
    rounds: int = ROUNDS,
    observe: Observe = lambda done, total, what: None,
) -> tuple[LatencyProfile, Path]:
    """Time students of a study's space on a device, and write a profile file.

    Args:
        study: Path of the study file. It may name the profile that is not there yet.
        settings: ``key=value`` overrides, as ``--set`` takes them.
        out: What is written; default: what the study names as ``latency.profile``.
        device: Name of a device; the study's modules may register it.
        options: Of the device, by name; or each as ``NAME=VALUE``.
        students: That the profile is fitted to, at least 20.
        held_out: Further ones, that tell its error, at least 1.
        rounds: How often each is timed, at least 2.
        observe: Follows.

    Returns:
        The profile, and where it was written.

    Raises:
        InputError: What was given is wrong, or the space has too few students.
        RunError: The device cannot run a student, or a package is missing.
    """
    if students < LEAST_STUDENTS or held_out < 1 or rounds < 2:
        raise InputError(
            f"a profile needs at least {LEAST_STUDENTS} students, 1 that is held out and 2 rounds; "
            f"got {students}, {held_out} and {rounds}"
        )
    spec = parse_study(Path(study), settings, lacking=("latency.profile",))
    given = options if isinstance(options, Mapping) else read_options(device, options)
    timed, all_options = opened_device(device, given)
    target = _target(spec, out)
    opened = open_study(_without_latency(spec))
    fitted, others = chosen(_drawn(opened, DRAWN_FOR_EACH * (students + held_out)), students, held_out)
    data = opened.context.resources.data
    shape = data.in_channels, data.n_classes, data.resolution
    image = data.in_channels, *sides(data.resolution)
    subjects = [Subject(_maker(each, data.in_channels, data.n_classes), image) for each in (*fitted, *others)]
    with tempfile.TemporaryDirectory() as folder:
        times = measured(subjects, timed, DEVICES[device].reads_onnx, Path(folder), rounds, observe)
    latencies = [min(each) for each in times]
    graphs = [design_operators(each, *shape) for each in (*fitted, *others)]
    works = {block: [work_of(graph, block) for graph in graphs] for block in BLOCKS}
    n = len(fitted)
    block = min(BLOCKS, key=lambda block: cross_validated(works[block][:n], latencies[:n]))
    made = LatencyProfile(
        device=device,
        options=all_options,
        hardware=timed.hardware,
        runtime=timed.runtime,
        date=datetime.date.today().isoformat(),
        in_channels=data.in_channels,
        resolution=data.resolution,
        n_classes=data.n_classes,
        space=spec.space,
        n_students=n,
        rounds=rounds,
        noise=_noise(times),
        block=block,
        milliseconds=fit(works[block][:n], latencies[:n]),
        held_out=(),
    )
    kept = tuple(
        HeldOutStudent(
            design_cost(each, *shape).macs,
            latency,
            made.predict(graph, data.in_channels, data.resolution, data.n_classes),
        )
        for each, latency, graph in zip(others, latencies[n:], graphs[n:], strict=True)
    )
    made = dataclasses.replace(made, held_out=kept)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(writable(target)) as partial:
        partial.write_text(json.dumps(made.to_dict(), indent=1) + "\n")
    return made, target


def _target(spec: StudySpec, out: Path | None) -> Path:
    if out is None and spec.latency is None:
        raise InputError(
            "the study names no latency.profile: say with --out where the profile is to be written"
        )
    target = out if out is not None else spec.resolve(spec.latency.profile)  # type: ignore[union-attr]  # looked at above
    if target.suffix != ".json":
        raise InputError(f"a profile is a .json file, got {target.name!r}")
    usable_folder(target.parent)  # before minutes of timing
    if target.parent.is_dir():
        writable(target)
    return target


def _without_latency(spec: StudySpec) -> StudySpec:
    """The study without what is to be made, so that its designs can be drawn."""

    def kept(name: str) -> bool:
        return not OBJECTIVES[name].needs.startswith("latency.")

    limits = spec.limits
    maximum = {name: bound for name, bound in limits.max.items() if kept(name)}
    minimum = {name: bound for name, bound in limits.min.items() if kept(name)}
    return dataclasses.replace(
        spec,
        objectives=(ACCURACY, "macs"),
        reference_point=None,
        limits=dataclasses.replace(limits, max=maximum, min=minimum),
        latency=None,
    )


def _drawn(opened: OpenStudy, n: int) -> list[tuple[ArchitectureSpec, int, set[str]]]:
    """Distinct students of the space, each with its MACs and what its operators do by kind, whatever the block."""
    data = opened.context.resources.data
    shape = data.in_channels, data.n_classes, data.resolution
    found = {}
    for design in opened.sample(n).measured:
        student = design.config.architecture
        if student not in found:
            graph = design_operators(student, *shape)
            kinds = {
                f"{block} {kind}: {what}"
                for block in BLOCKS
                for kind, amounts in work_of(graph, block).items()
                for what, amount in amounts.items()
                if amount
            }
            found[student] = student, design_cost(student, *shape).macs, kinds
    return list(found.values())


def chosen(
    drawn: Sequence[tuple[ArchitectureSpec, int, set[str]]], students: int, held_out: int
) -> tuple[list[ArchitectureSpec], list[ArchitectureSpec]]:
    """Students to fit to, and others to judge by.

    Those that are held out are spread evenly over the logarithm of MACs. To fit to are first those that have operators
    of each kind, so that none is met for the first time later, and then others that are spread likewise.

    Args:
        drawn: Each with its MACs and the kinds of its operators.
        students: To fit to.
        held_out: Others.

    Raises:
        InputError: There are too few.
    """
    if len(drawn) < LEAST_STUDENTS + held_out:
        raise InputError(
            f"the space shows {len(drawn)} students; a profile needs {LEAST_STUDENTS} beside the {held_out} that are "
            "held out"
        )
    left = list(range(len(drawn)))
    random.Random(0).shuffle(left)
    fitted: list[int] = []
    seen = Counter[str]()
    for index in list(left):
        kinds = drawn[index][2]
        if len(fitted) < students and any(seen[kind] < LEAST_OF_A_KIND for kind in kinds):
            fitted.append(index)
            left.remove(index)
            seen.update(kinds)
    # Of an operator that is fitted to nobody nothing could be predicted, which is better found out before the timing.
    left = [index for index in left if drawn[index][2] <= set(seen)]
    if not left:
        raise InputError(
            f"no student is left to be held out whose operators are all among those of the {len(fitted)} that are "
            "fitted to: give more students, or a space with fewer kinds of operators"
        )
    others = _spread(drawn, left, min(held_out, len(left)))
    fitted += _spread(drawn, left, min(students - len(fitted), len(left)))
    return [drawn[index][0] for index in fitted], [drawn[index][0] for index in others]


def _spread(drawn: Sequence[tuple[ArchitectureSpec, int, set[str]]], left: list[int], n: int) -> list[int]:
    """Take `n` of what is left, at equal distances of the logarithm of MACs as far as there are any."""
    taken: list[int] = []
    logs = {index: math.log(drawn[index][1]) for index in left}
    for wanted in np.linspace(min(logs.values(), default=0), max(logs.values(), default=0), n):
        nearest = min(left, key=lambda index: abs(logs[index] - wanted))
        left.remove(nearest)
        taken.append(nearest)
    return taken


def time_students(
    files: Sequence[Path],
    *,
    device: str = "onnxruntime",
    options: Mapping[str, OptionValue] | None = None,
    rounds: int = ROUNDS,
) -> list[dict[str, Any]]:
    """Latencies of exported students.

    Args:
        files: Of safetensors.
        device: Name of a registered device.
        options: Of the device.
        rounds: How often each is timed, in turn; at least 1.

    Returns:
        For each file ``file``, ``macs`` and ``latency_ms``.

    Raises:
        InputError: A file is no student's, or the device's options are wrong.
        RunError: The device cannot run a student, or a package is missing.
    """
    timed, _ = opened_device(device, options or {})
    subjects, macs = [], []
    for file in files:
        shape = probe_shape(file)
        if shape is None:
            raise InputError(
                f"{file} does not say which images its network takes: export it with this version"
            )
        network = load_student(file)
        subjects.append(Subject(lambda network=network: network, shape))  # type: ignore[misc]  # bound now
        macs.append(network_cost(network, shape[0], shape[1:]).macs)
    with tempfile.TemporaryDirectory() as folder:
        times = measured(subjects, timed, DEVICES[device].reads_onnx, Path(folder), rounds)
    return [
        {"file": str(file), "macs": n, "latency_ms": min(each)}
        for file, n, each in zip(files, macs, times, strict=True)
    ]


def read_options(device: str, given: Sequence[str]) -> dict[str, OptionValue]:
    """Options of a device from ``NAME=VALUE``, each of the type that the device's card says.

    Raises:
        InputError: One has no name, or no value of its type.
    """
    known, found = DEVICES[device].options, dict[str, OptionValue]()
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--option {text}: wanted NAME=VALUE, such as threads=2")
        kind = known[name].type if name in known else str
        try:
            found[name] = _TRUTHS[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            found[name] = value  # said with the others, with what is allowed
    return found


# --- timing --------------------------------------------------------------------------------------------------------


def opened_device(name: str, options: Mapping[str, OptionValue]) -> tuple[Device, dict[str, OptionValue]]:
    """A device, and all of its options that have a value.

    Raises:
        InputError: There is none of the name, or its options are wrong.
        RunError: A package that it needs is missing.
    """
    card = DEVICES[name]
    settings = card.settings(options)
    if problem := lacks(f"device {name!r}", card.packages):
        raise RunError(problem)
    made: Device = DEVICES.load(name)(**settings)
    return made, {key: value for key, value in settings.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is timed.

    Args:
        make: Gives the network, in evaluation mode, on the CPU.
        shape: Of an image, ``(C, H, W)``.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]


def measured(
    subjects: Sequence[Subject],
    device: Device,
    onnx: bool,
    folder: Path,
    rounds: int,
    observe: Observe = lambda done, total, what: None,
) -> list[list[float]]:
    """Milliseconds of networks, one entry for each round.

    Args:
        subjects: The networks.
        device: Times them.
        onnx: Whether it reads files.
        folder: For the files.
        rounds: In each of which every network is timed, in another order.
        observe: Follows.
    """
    timers: list[Timer] = []
    total = len(subjects) + rounds
    for index, subject in enumerate(subjects):
        observe(index, total, "students are written")
        network, file = subject.make(), folder / f"{index}.onnx"
        image = torch.rand(1, *subject.shape, generator=torch.Generator().manual_seed(0))
        if onnx:
            write_onnx(network, file, subject.shape)
        timers.append(device.timer(network, file, image))
    times: list[list[float]] = [[] for _ in timers]
    order, chance = list(range(len(timers))), random.Random(0)
    for number in range(rounds):
        observe(len(subjects) + number, total, f"round {number + 1}")
        chance.shuffle(order)
        for index in order:
            times[index].append(timers[index]())
    observe(total, total, "")
    return times


def write_onnx(network: nn.Module, file: Path, shape: tuple[int, int, int]) -> None:
    """A network as ONNX Runtime computes it after ``naskd export``, written in a twentieth of the time.

    torch's older exporter knows no integers; a network of these is written as ``naskd export`` writes it. Of the
    others, ONNX Runtime makes the same kernels of both files: a test compares them.

    Args:
        network: In evaluation mode, on the CPU.
        file: What is written.
        shape: Of an image, ``(C, H, W)``.
    """
    if is_quantized(network):
        OnnxFormat().write(network, file, file, Interface((), shape))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older one
        torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            file,
            dynamo=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        )
    _merge_unsqueezes(file)


def _merge_unsqueezes(file: Path) -> None:
    """Add two dimensions in one step, as the newer exporter does: a step takes a share of a small student's latency."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    graph = model.graph
    values = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    values |= {tensor.name: tensor for tensor in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node if node.op_type == "Unsqueeze"}
    for second in list(made_by.values()):
        first = made_by.get(second.input[0])
        if first is None or sum(first.output[0] in node.input for node in graph.node) > 1:
            continue
        axes = [
            axis for node in (first, second) for axis in numpy_helper.to_array(values[node.input[1]]).tolist()
        ]
        name = f"{second.output[0]}_axes"
        graph.initializer.append(numpy_helper.from_array(np.array(axes, np.int64), name))
        second.input[:] = [first.input[0], name]
        graph.node.remove(first)
    onnx.save(model, file)


def _maker(student: ArchitectureSpec, channels: int, n_classes: int) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build_student(student, channels, n_classes, (0.5,) * channels, (0.25,) * channels)
            if is_quantized(network):
                _see(network.train(), torch.rand(8, channels, 32, 32))
            return merged(network.eval())

    return make


@torch.no_grad()
def _see(network: nn.Module, images: Tensor) -> None:
    """Have the ranges of maps known, which a network of integers needs to be written."""
    network(images)


def _noise(times: Sequence[Sequence[float]]) -> float:
    """See :class:`~naskd.spec.latency.LatencyProfile`."""
    apart = sorted(abs(min(each[::2]) / min(each[1::2]) - 1) for each in times)
    return apart[math.ceil(0.9 * len(apart)) - 1]


# --- fitting -------------------------------------------------------------------------------------------------------

Work = Mapping[str, Mapping[str, float]]


def fit(works: Sequence[Work], latencies: Sequence[float]) -> dict[str, dict[str, float]]:
    """Milliseconds by kind of operator and by what it does, none negative: least squares of relative errors.

    What no student does is left out: it is not known, and it is not nothing.

    Args:
        works: Of students; see :func:`~naskd.spec.latency.work_of`.
        latencies: In ms.
    """
    columns = sorted(
        {
            (kind, what)
            for work in works
            for kind, amounts in work.items()
            for what, amount in amounts.items()
            if amount
        }
    )
    amounts = np.array([[work.get(kind, {}).get(what, 0.0) for kind, what in columns] for work in works])
    scale = np.maximum(amounts.max(0), 1e-12)
    relative = amounts / scale / np.array(latencies)[:, None]
    weights, _ = nnls(relative, np.ones(len(works)), maxiter=100 * len(columns))
    found: dict[str, dict[str, float]] = {}
    for (kind, what), value in zip(columns, weights / scale, strict=True):
        found.setdefault(kind, {})[what] = float(value)
    return found


def predicted(milliseconds: Work, work: Work) -> float:
    """Milliseconds of a network; of a kind of operator that was not fitted, nothing."""
    return sum(
        milliseconds.get(kind, {}).get(what, 0.0) * amount
        for kind, amounts in work.items()
        for what, amount in amounts.items()
    )


def cross_validated(works: Sequence[Work], latencies: Sequence[float]) -> float:
    """Mean relative error for students that were left out of the fit."""
    errors = []
    for fold in range(FOLDS):
        inside = [index for index in range(len(works)) if index % FOLDS != fold]
        made = fit([works[index] for index in inside], [latencies[index] for index in inside])
        errors += [
            abs(predicted(made, works[index]) / latencies[index] - 1)
            for index in range(fold, len(works), FOLDS)
        ]
    return statistics.fmean(errors)
