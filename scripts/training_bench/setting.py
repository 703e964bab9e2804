"""What is measured: images, networks, and the study's own objects around them."""

import argparse
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from naskd.data.images import ImageSet, SearchData
from naskd.data.load import channel_statistics
from naskd.spec.datasets import DataSpec
from naskd.spec.design import (
    ArchitectureSpec,
    DistillationSpec,
    KnowledgeTerm,
    StageSpec,
    TrainingSpec,
    TrialConfig,
)
from naskd.spec.study import BudgetSpec, ExecutionSpec, StudySpec
from naskd.spec.teachers import TeacherSpec
from naskd.store.artifacts import ArtifactStore
from naskd.training.compute import Compute
from naskd.trials.context import TrialContext
from naskd.trials.jobs import Decision, Job
from naskd.trials.run import TrialRun, run_job, start_run

ROOT = Path(__file__).resolve().parent.parent.parent
SUFFIXES = (".jpg", ".jpeg", ".png")
LOGITS = (KnowledgeTerm("logits", weighting="balanced"),)
MAPS = (
    KnowledgeTerm("hint", weighting="balanced", pairs="last"),
    KnowledgeTerm("attention", weighting="balanced", pairs="all"),
)
TEACHINGS = {"logits": LOGITS, "hint+attention": MAPS, "all three": (*LOGITS, *MAPS)}


def resnet(depth: int, width: int = 16, stem_stride: int = 1) -> ArchitectureSpec:
    """Three stages of basic blocks, as ResNets for CIFAR-10 have: depth 3 is ResNet-20, depth 9 ResNet-56."""
    stages = tuple(StageSpec("basic", depth, width * 2**i, stride=2 if i else 1) for i in range(3))
    return ArchitectureSpec(stages, stem_width=width, stem_stride=stem_stride)


# --- images --------------------------------------------------------------------------------------------------------


def load_images(args: argparse.Namespace, n_train: int, n_val: int) -> SearchData:
    """The images of ``--images``, or made-up ones: no time depends on what they show, but accuracies do."""
    if args.images is None:
        return made_up_images(n_train, n_val)
    return read_images(args.images, n_train, n_val)


def made_up_images(n_train: int, n_val: int, resolution: int = 32) -> SearchData:
    """Noise with labels in turn, in the shape of CIFAR-10."""
    n = n_train + n_val
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (n, 3, resolution, resolution), dtype=np.uint8)
    return _search_data(images, np.arange(n) % 10, n_train, tuple(map(str, range(10))))


def read_images(path: Path, n_train: int, n_val: int) -> SearchData:
    """Draw equally many images a class from ``<class>/<name>.jpg`` in a folder or a zip file.

    Raises:
        ValueError: There are not enough, or they differ in shape.
    """
    from PIL import Image

    names = sorted(_image_names(path))
    random.Random(0).shuffle(names)
    classes = sorted({name.split("/")[-2] for name in names})
    quota = -(-(n_train + n_val) // max(1, len(classes)))
    drawn = dict.fromkeys(classes, 0)
    wanted = []
    for name in names:
        drawn[name.split("/")[-2]] += 1
        if drawn[name.split("/")[-2]] <= quota:
            wanted.append(name)
    if min(drawn.values(), default=0) < quota:
        raise ValueError(
            f"--images {path}: {n_train} + {n_val} images need {quota} in each of {len(classes)} classes, "
            f"the smallest has {min(drawn.values(), default=0)}; ask for fewer"
        )
    pixels = [
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
        for data in _contents(path, wanted)
    ]
    if len({p.shape for p in pixels}) != 1:
        raise ValueError(f"--images {path}: images must be of one shape")
    labels = np.asarray([classes.index(name.split("/")[-2]) for name in wanted])
    return _search_data(np.stack(pixels), labels, n_train, tuple(classes), n_val)


def _image_names(path: Path) -> list[str]:
    if path.is_dir():
        found = [p.relative_to(path).as_posix() for p in path.rglob("*")]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
    else:
        raise ValueError(f"--images {path}: neither a folder nor a zip file of <class>/<name>.jpg")
    return [name for name in found if name.lower().endswith(SUFFIXES) and "/" in name]


def _contents(path: Path, names: Sequence[str]) -> Iterator[bytes]:
    if path.is_dir():
        yield from ((path / name).read_bytes() for name in names)
        return
    with zipfile.ZipFile(path) as archive:
        yield from map(archive.read, names)


def _search_data(
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    n_train: int,
    classes: tuple[str, ...],
    n_val: int | None = None,
) -> SearchData:
    images = np.ascontiguousarray(images)
    stop = len(images) if n_val is None else n_train + n_val
    mean, std = channel_statistics(images[:n_train])
    train, val = (
        ImageSet(torch.from_numpy(images[part].copy()), torch.from_numpy(labels[part].astype(np.int64)))
        for part in (slice(0, n_train), slice(n_train, stop))
    )
    content = hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest()[:12]
    return SearchData(train, val, classes, mean, std, content, f"{n_train}-{stop - n_train}")


# --- studies -------------------------------------------------------------------------------------------------------


def execution(args: argparse.Namespace) -> ExecutionSpec:
    """Device and threads, and what ``--execution KEY=VALUE`` says."""
    given: dict[str, Any] = {"device": args.device, "threads": args.threads}
    for setting in args.execution:
        key, _, value = setting.partition("=")
        try:
            given[key] = json.loads(value)
        except json.JSONDecodeError:
            given[key] = value
    return ExecutionSpec(**given)


def resolve(args: argparse.Namespace) -> Compute:
    """Of a context of these arguments, where there is none yet."""
    spec = execution(args)
    return Compute.resolve(spec.device, spec.precision, spec.channels_last, spec.threads)


def study(
    args: argparse.Namespace,
    teacher: ArchitectureSpec,
    epochs: int,
    teaching: TrainingSpec,
    budget: BudgetSpec | None = None,
    **more: Any,
) -> StudySpec:
    """A study of given images.

    Args:
        args: Of the command line.
        teacher: Trained as `teaching` says.
        epochs: Of the longest training, which says how many columns a bank may have.
        teaching: See `teacher`.
        budget: Default one trial.
        more: Further fields.
    """
    return StudySpec(
        name="bench",
        space="space.py:joint",
        data=DataSpec("digits"),  # the images are given to the context
        budget=budget or BudgetSpec(trials=1),
        teacher=TeacherSpec(architecture=teacher, training=teaching),
        epochs=epochs,
        execution=execution(args),
        **more,
    )


def open_context(spec: StudySpec, data: SearchData, folder: Path, cache: Path | None) -> TrialContext:
    """A context whose teacher is trained and stored in `folder`."""
    context = TrialContext(spec, ArtifactStore(folder / "artifacts"), cache=cache, data=data)
    context.compute.apply_threads()
    recipe = context.teacher_recipe()
    job = Job(recipe.artifact_id, "artifact", None, recipe.seed, 0, requires=recipe.requires)
    made = run_job(job, context, lambda epoch, metrics: Decision.CONTINUE)
    if made.status != "complete":
        raise RuntimeError(f"the teacher was not made: {made.reason}\n{made.error}")
    return context


def new_run(
    context: TrialContext,
    student: ArchitectureSpec,
    terms: tuple[KnowledgeTerm, ...],
    training: TrainingSpec,
    seed: int = 0,
    *,
    online: bool = False,
) -> TrialRun:
    """A training as a study runs it; `online` asks the teacher at every step instead of the bank."""
    config = TrialConfig(student, DistillationSpec(terms=terms).canonical(), training)
    if not online:
        return start_run(config, context, seed)[0]
    return TrialRun(
        config.distillation,
        training,
        lambda: context.build_student(student),
        context,
        seed,
        context.views(training.augmentation),
        (context.source(context.teacher_recipe()),),
        architecture=student,
    )


def warm(
    context: TrialContext, student: ArchitectureSpec, terms: tuple[KnowledgeTerm, ...], training: TrainingSpec
) -> None:
    """Fill the bank: a column is filled whole by the first step of any trial that meets its epoch."""
    run = new_run(context, student, terms, training)
    for _ in range(training.epochs):
        run.loop.run_epoch(max_steps=1)


def asked_images(context: TrialContext) -> int:
    """Images that the teacher was really run on so far."""
    return context.source(context.teacher_recipe()).forward_images
