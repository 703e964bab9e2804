"""A study that knows its images: sizes, splits, space, limits and budget that fit them, each with the reason beside it.

The rules are here and in the templates. They give a search that ends within about an hour and says something; they are
a beginning, not an optimum.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Literal

import torch

from naskd.data.recognising import ImagesFound, find_images
from naskd.report.units import count, macs
from naskd.runs.checking import Checked, examine, threads_that_help
from naskd.runs.first_budget import why_budget, with_budget
from naskd.runs.first_space import BLOCKS, FirstSpace, Shape, space_for
from naskd.runs.first_teacher import FirstTeacher, near, teacher_for, text
from naskd.runs.first_threads import step_seconds
from naskd.spec.cpus import available_cpus
from naskd.spec.design import TrainingSpec, TrialConfig
from naskd.spec.doing import doing
from naskd.spec.errors import InputError
from naskd.spec.sizes import Size, sides, size_of
from naskd.spec.study import RUNS, TAKEN
from naskd.store.files import folder_beside, replacing

KEPT_SIDE = 64
"""Square images up to this side are kept as they are."""
SIDES = (8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224)
"""That others are resized to."""
MOST_SIDE = {"cpu": 96, "cuda": 224}
MACS_PER_PIXEL = 4000
"""Of the largest student, where no target is given: 4 million at 32x32."""
IMAGES_SHOWN = {"cpu": 30_000, "cuda": 1_500_000}
"""Training images that a student is shown, about, every epoch counted anew."""
EPOCHS = {"cpu": (6, 40), "cuda": (30, 100)}
JUDGED_ON = 1000
"""Images that are enough for a validation or a test split."""
SKEWED = 3
"""Times that the largest class may be the smallest before classes are weighed."""
UNTIMED_TRIALS = 40
SMALL_SIDE, MOST_THREADS = 16, 4
_SEALED = "Sealed test images: no search reads them, only naskd retrain and naskd export."


@dataclass(frozen=True)
class Wishes:
    """What whoever begins a study says of it.

    Args:
        images: Where the images are.
        teacher: ``timm:NAME``, ``torchvision:NAME``, either with ``=FILE`` for weights of the user's, or a file of
            weights; None for one that is trained from nothing.
        target_macs: Multiply-accumulates of a student, at most; None for what suits the images.
        target_ms: Milliseconds that a student takes on a device, at most; None where its latency does not matter.
    """

    images: Path
    teacher: str | None = None
    target_macs: int | None = None
    target_ms: float | None = None


@dataclass(frozen=True)
class FirstStudy:
    """What was written.

    Args:
        files: Paths, sorted.
        notes: What was found and is not used, a sentence each.
        to_do: What must be done before it can be checked; empty where nothing is.
        checked: What a check says; None where something must be done first.
        profile: Whether a latency profile must be measured first.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]
    to_do: str
    checked: Checked | None
    profile: bool


def write_study(folder: Path, wishes: Wishes, further: Mapping[str, bytes]) -> FirstStudy:
    """Look at images, write a study for them into a new folder, and check it.

    Args:
        folder: That is not there, or empty.
        wishes: What is wanted.
        further: Content of further files by name.

    Raises:
        InputError: The folder holds something, there are no images, or what is wanted cannot be had; then nothing is
            written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        held = (
            ", ".join(sorted(entry.name for entry in folder.iterdir())[:4]) if folder.is_dir() else "a file"
        )
        raise InputError(f"{folder} already holds {held}; nothing was written: choose another folder")
    doing("looking at the images")
    plan = _Plan.of(folder, wishes)
    content = {name: text.encode() for name, text in plan.files().items()} | dict(further)
    _write(folder, content)
    study, checked = folder / "study.toml", None
    # Timed before the check, which then times trials as the search will run them. No teacher is asked for it.
    if plan.most_threads > 1:
        plan = replace(
            plan, steps=step_seconds(study, _run(folder).parent, plan.middle, (1, plan.most_threads))
        )
        _rewrite(study, plan.files()["study.toml"])
    if not plan.to_do:
        # What has no profile yet cannot be checked with its latencies: the same study without them is.
        checked = with_budget(_checked(folder, plan))
        _rewrite(study, plan.files(checked.cost)["study.toml"])
    return FirstStudy(
        tuple(sorted(folder / name for name in content)),
        plan.images.place.notes,
        plan.to_do,
        checked,
        wishes.target_ms is not None,
    )


def _write(folder: Path, content: Mapping[str, bytes]) -> None:
    """All files, or none."""
    with folder_beside(folder) as made:
        for name, data in content.items():
            (made / name).write_bytes(data)
        os.replace(made, folder)  # an empty folder is replaced


def _rewrite(file: Path, content: str) -> None:
    with replacing(file) as made:
        made.write_text(content, encoding="utf-8")


def _run(folder: Path) -> Path:
    """Of a search that is begun in the folder, which has the same images."""
    return folder / RUNS / _study_name(folder)


def _checked(folder: Path, plan: "_Plan") -> Checked:
    if plan.wishes.target_ms is None:
        return examine(folder / "study.toml", out=_run(folder))
    with folder_beside(folder) as made:
        for name, text in plan.files(latency=False).items():
            (made / name).write_text(text, encoding="utf-8")
        return examine(made / "study.toml", out=_run(folder))


@dataclass(frozen=True)
class _Plan:
    """The numbers of a study, and why they are so."""

    folder: Path
    wishes: Wishes
    images: ImagesFound
    device: Literal["cpu", "cuda"]
    side: int | None
    why_side: str
    size: Size
    target: int
    shape: "Shape"
    space: "FirstSpace"
    teacher: "FirstTeacher"
    steps: Mapping[int, float] = field(default_factory=dict)
    """Seconds of a step by the number of threads, where it was timed."""

    @staticmethod
    def of(folder: Path, wishes: Wishes) -> "_Plan":
        """See :func:`write_study`."""
        images = find_images(wishes.images)
        _check_classes(images)
        device: Literal["cpu", "cuda"] = "cuda" if torch.cuda.is_available() else "cpu"
        side, why_side, size = _resolution(images.sizes, device)
        height, width = sides(size)
        target = wishes.target_macs or MACS_PER_PIXEL * height * width
        channels, n_classes = images.channels, len(images.counts)
        shape = Shape.of(min(height, width))
        space = space_for(shape, channels, n_classes, size, target)
        teacher = teacher_for(wishes.teacher, folder, images, shape, size, target)
        return _Plan(folder, wishes, images, device, side, why_side, size, target, shape, space, teacher)

    @property
    def to_do(self) -> str:
        """See :class:`FirstStudy`."""
        return self.teacher.to_do

    @property
    def n_images(self) -> int:
        """Without test images that lie apart."""
        return sum(self.images.counts.values())

    @property
    def test_fraction(self) -> float:
        """Of all images; 0 where test images lie apart."""
        return 0.0 if self.images.own_test else _fraction(self.n_images)

    @property
    def val_fraction(self) -> float:
        """Of the others."""
        return _fraction(round(self.n_images * (1 - self.test_fraction)))

    @property
    def n_train(self) -> int:
        """About."""
        return round(self.n_images * (1 - self.test_fraction) * (1 - self.val_fraction))

    @property
    def n_val(self) -> int:
        """About."""
        return round(self.n_images * (1 - self.test_fraction) * self.val_fraction)

    @property
    def epochs(self) -> int:
        """Of a student."""
        low, high = EPOCHS[self.device]
        return min(high, max(low, round(IMAGES_SHOWN[self.device] / self.n_train)))

    @property
    def batch_size(self) -> int:
        """A power of two, so that an epoch has about 16 steps or more."""
        return min(128, max(8, 1 << int(math.log2(max(1, self.n_train / 16)))))

    @property
    def skewed(self) -> bool:
        """Whether classes are of very different sizes."""
        return max(self.images.counts.values()) > SKEWED * min(self.images.counts.values())

    @property
    def augmentation(self) -> Literal["translate", "flip_translate", "resized_crop"]:
        """See :class:`~naskd.spec.design.TrainingSpec`."""
        if self.images.channels == 1:
            return "translate"
        return "flip_translate" if min(sides(self.size)) <= KEPT_SIDE else "resized_crop"

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""
        return 0.01 if min(sides(self.size)) <= 16 else 0.05

    @property
    def title(self) -> str:
        """The images in a sentence."""
        height, width = sides(self.size)
        kind = "gray" if self.images.channels == 1 else "colour"
        return f"{self.n_images} {kind} images of {len(self.images.counts)} classes, seen at {width}x{height} pixels"

    def files(self, cost: Mapping[str, Any] | None = None, *, latency: bool = True) -> dict[str, str]:
        """Content by name.

        Args:
            cost: What a trial costs, where that was timed; see :class:`~naskd.runs.checking.Checked`.
            latency: Whether the target of latency counts.
        """
        templates = files("naskd").joinpath("templates", "images")

        def filled(name: str, values: Mapping[str, Any]) -> str:
            return Template(templates.joinpath(name).read_text(encoding="utf-8")).substitute(values)

        name = _study_name(self.folder)
        found = {
            "study.toml": filled("study.toml", self._study(name, cost or {}, latency)),
            "space.py": filled("space.py.txt", self.space_for()),
            "README.md": filled("README.md", {"name": name, "title": self.title}),
        }
        if self.teacher.code:
            found["teacher.py"] = self.teacher.code
        return found

    def _study(self, name: str, cost: Mapping[str, Any], latency: bool) -> dict[str, Any]:
        wanted = self.wishes.target_ms if latency else None
        trials = int(cost["trials"]) if cost else UNTIMED_TRIALS
        objectives = ["val_accuracy", "macs" if wanted is None else "latency_ms"]
        why = "Accuracy on the validation images against the cost of one image."
        if self.skewed:
            objectives.insert(1, "balanced_accuracy")
            why = "Classes are of very different sizes, so that the mean accuracy of the classes counts too."
        lines, profile = [], ""
        if wanted is not None:
            profile = (
                "\n[latency]\n# naskd profile study.toml writes it, on the device that matters.\n"
                'profile = "latency.json"\n'
            )
            lines += ["# The target that was given.", f"max.latency_ms = {wanted:g}"]
        if wanted is None or self.wishes.target_macs is not None:
            lines += [f"# {self._why_limit()}", f"max_macs = {self.target}"]
        return {
            "title": self.title,
            "name": name,
            "why_epochs": (
                f"Of every student: with about {self.n_train} training images, {count(self.epochs * self.n_train)} are "
                "shown."
            ),
            "epochs": self.epochs,
            "why_objectives": why,
            "objectives": json.dumps(objectives),
            "latency": profile,
            "data": self._data(),
            "teacher": self.teacher.table(
                self.epochs, self.batch_size, self.augmentation, self.weight_decay, skewed=self.skewed
            ),
            # Expected hypervolume needs costs that are known before training, of all objectives beside accuracy.
            "sampler": "tpe" if self.skewed else "ehvi",
            "startup": max(min(8, trials // 2), trials // 5),
            "why_budget": why_budget(cost),
            "trials": trials,
            "limits": "\n".join(lines),
            **self._threads(),
            "retrain_epochs": 2 * self.epochs,
        }

    @property
    def most_threads(self) -> int:
        """Of a trial: those that are worth timing."""
        if self.device != "cpu" or min(sides(self.size)) <= SMALL_SIDE:
            return 1
        return min(MOST_THREADS, available_cpus())

    @property
    def middle(self) -> TrialConfig:
        """A student of middle size that learns from the labels alone."""
        training = TrainingSpec(
            batch_size=self.batch_size,
            optimizer="adamw",
            weight_decay=self.weight_decay,
            augmentation=self.augmentation,
        )
        return TrialConfig(self.space.middle, training=training)

    def _threads(self) -> dict[str, Any]:
        """One, where more were not timed to be faster: a run keeps their number, and two may be far slower than one."""
        if min(sides(self.size)) <= SMALL_SIDE:
            return {"threads": 1, "why_threads": "Images this small gain nothing from a second one."}
        cpus = available_cpus()
        if cpus == 1:
            return {"threads": 1, "why_threads": "This machine has one."}
        if self.steps:
            took = " and ".join(f"{seconds:.2g} s with {number}" for number, seconds in self.steps.items())
            return {
                "threads": threads_that_help(self.steps),
                "why_threads": f"A step of a student took {took}, of {cpus} that are here.",
            }
        return {"threads": 1, "why_threads": "More were not timed, and two may be slower than one."}

    def _why_limit(self) -> str:
        if self.wishes.target_macs is not None:
            return "Multiply-accumulates of one image: the target that was given."
        height, width = sides(self.size)
        return f"Multiply-accumulates of one image: {MACS_PER_PIXEL} for each of its {width}x{height} pixels."

    def _data(self) -> str:
        place, channels = self.images.place, self.images.channels
        lines = [f"kind = {text(place.kind)}", f"root = {text(near(place.root, self.folder))}"]
        if place.test_root is not None:
            lines += [f"# {_SEALED}"]
            if (name := Path(place.test_root).name).lower().startswith("val"):
                lines += [
                    f"# The folder {name!r} is taken for them: those that a search judges on are cut off below."
                ]
            lines += [f"test_root = {text(near(place.test_root, self.folder))}"]
        lines += [f"{key} = {text(value)}" for key, value in place.options]
        if self.side is not None:
            lines += [f"# {self.why_side}", f"resolution = {self.side}"]
        else:
            lines += [f"# resolution is not set: {self.why_side}"]
        if channels == 1 and self.teacher.needs_colour:
            lines += ["# The images are gray, and the teacher takes colour.", "channels = 3"]
        if self.test_fraction:
            lines += [f"# {_SEALED} {_error_of(self.n_images * self.test_fraction)}"]
            lines += [f"test_fraction = {self.test_fraction:g}"]
        lines += [f"# Of the training images; the search judges on them. {_error_of(self.n_val)}"]
        lines += [f"val_fraction = {self.val_fraction:g}"]
        n_bytes = (
            self.n_images * max(channels, 3 if self.teacher.needs_colour else 1) * math.prod(sides(self.size))
        )
        if n_bytes > 4 * 2**30:
            lines += [f"# As bytes the images need {count(n_bytes)}B, which rest in a mapped file."]
            lines += [f"max_bytes = {math.ceil(1.1 * n_bytes / 1e9)}_000_000_000"]
        lines += [
            "# Channels are normalised with mean and standard deviation of the training images, which are computed."
        ]
        return "\n".join(lines)

    def space_for(self) -> dict[str, Any]:
        height, width = sides(self.size)
        small = min(height, width) <= 16
        views = {
            "translate": "gray images are not mirrored, since letters and digits are not the same then",
            "flip_translate": "small colour images are moved and mirrored",
            "resized_crop": "large images are cropped, resized and mirrored",
        }
        stages = "\n".join(f"    {_call(stage)}," for stage in self.space.stages)
        return {
            "about": f"images of {width}x{height} in {len(self.images.counts)} classes",
            "sizes": (
                f"Its students have at most {macs(self.target)}, the limit in study.toml."
                if self.wishes.target_ms is None
                else f"Its widths are made for students of {macs(self.target)} and less."
            ),
            "least": macs(self.space.least),
            "why_stages": self.space.why,
            "stages": stages,
            "blocks": "\n".join(f"    {_call(block)}," for block in BLOCKS),
            "min_stages": self.shape.min_stages,
            "stem_width": self.space.stem_width,
            "why_stem": self.shape.why_stem,
            "stem_strides": self.shape.stem_strides,
            "why_teaching": (
                "Of the presets that `naskd methods` lists: the teacher has seen more images than its students."
                if self.teacher.saw_more
                else "Of the presets that `naskd methods` lists: the teacher has seen the images of its students alone."
            ),
            "teaching": "more-images-1" if self.teacher.saw_more else "same-images-1",
            "why_training": (
                f"About {self.n_train} training images give {math.ceil(self.n_train / self.batch_size)} steps an "
                f"epoch; {views[self.augmentation]}."
            ),
            "batch_size": self.batch_size,
            "weight_decay": self.weight_decay,
            "augmentation": self.augmentation,
            "learning_rates": (3e-3, 3e-2) if small else (1e-3, 1e-2),
            "why_class_weights": (
                f"{_class_sizes(self.images.counts)}: "
                f"{'rare ones may count more' if self.skewed else 'none needs to count more'}."
            ),
            "class_weights": '("none", "balanced")' if self.skewed else '("none",)',
        }


def _class_sizes(counts: Mapping[str, int]) -> str:
    least, most = min(counts.values()), max(counts.values())
    return f"Each class has {least} images" if least == most else f"The classes have {least} to {most} images"


def _check_classes(images: ImagesFound) -> None:
    least = 2 if images.own_test else 3
    small = [f"{name!r} ({n})" for name, n in images.counts.items() if n < least]
    if small:
        splits = "training, validation and test" if least == 3 else "training and validation"
        more = f" and {len(small) - 6} more" if len(small) > 6 else ""
        raise InputError(
            f"classes have too few images to be in {splits}: {', '.join(small[:6])}{more}; at least {least} are "
            "needed: add images or remove the class"
        )


def _resolution(sizes: Mapping[tuple[int, int], int], device: str) -> tuple[int | None, str, Size]:
    """``data.resolution``, why it is so, and the size of the images that is seen."""
    (height, width), *others = sizes
    if not others and height == width and SIDES[0] <= height <= KEPT_SIDE:
        return None, f"all images are {width}x{height}, and are kept so.", height
    shorter = sorted(side for size, n in sizes.items() for side in [min(size)] * n)
    median, most = shorter[len(shorter) // 2], MOST_SIDE[device]
    side = max((s for s in SIDES if s <= min(median, most)), default=SIDES[0])
    why = (
        f"Images are resized and cropped to this square: half of them have a shorter side of {median} or more"
    )
    if median > most:
        slow = ", more is slow without a GPU" if device == "cpu" else ""
        why += f"; {most} is enough to begin with{slow}"
    return side, f"{why}.", size_of(side, side)


def _fraction(n: int) -> float:
    return round(min(0.2, max(0.1, JUDGED_ON / max(1, n))), 2)


def _error_of(n: float) -> str:
    """How well an accuracy is known."""
    points = 100 * math.sqrt(0.8 * 0.2 / max(1.0, n))
    return f"On about {round(n)} of them an accuracy near 80 % is known to {points:.1f} points (one standard error)."


def _study_name(folder: Path) -> str:
    """The folder's name as a study may have it."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in folder.absolute().name)
    name = name.lstrip("._-")[:200] or "my-study"
    return f"{name}-study" if name in TAKEN else name


def _call(choice: Any) -> str:
    """A choice of a space as code, without what is at its default."""
    given = [
        f"{f.name}={getattr(choice, f.name)!r}"
        for f in fields(choice)
        if getattr(choice, f.name) != f.default
    ]
    return f"{type(choice).__name__}({', '.join(given)})"
