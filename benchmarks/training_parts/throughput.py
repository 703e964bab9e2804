"""Images per second of a whole distilled trial, against the customary loop, torchdistill and the ceiling."""

import argparse
import gc
import importlib
import statistics
from pathlib import Path

import torch
from torch import nn

from harness.images import load_images
from harness.results import Row, say
from harness.setting import LOGITS, Setting, open_setting, resnet, study
from harness.spread import header, middle, ratios, values, verdict
from harness.timing import in_turns, timed
from naskd.data.images import SearchData
from naskd.networks.student import design_cost
from naskd.spec.design import ArchitectureSpec, DistillationSpec, TrainingSpec, TrialConfig
from naskd.spec.study import StudySpec
from naskd.trials.jobs import TrialResult
from training_parts import loops

STUDENT_DEPTH = 1
PAIRS: dict[str, tuple[int, int]] = {"3": (3, 2), "10": (9, 2), "50": (11, 1)}
"""Depth and stem's stride of the teacher, by about how many times the student's MACs it has."""
COMPARED = ("customary", "torchdistill")
SHARE = 0.8


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    data = load_images(args, args.throughput_images, args.throughput_val)
    training = TrainingSpec(
        epochs=args.throughput_epochs, batch_size=args.throughput_batch, augmentation="flip_translate"
    )
    student = resnet(STUDENT_DEPTH, args.width, stem_stride=2)
    rows: list[Row] = []
    for name in args.pairs:
        depth, stride = PAIRS[name]
        teacher = resnet(depth, args.width, stem_stride=stride)
        one_epoch = TrainingSpec(epochs=1, batch_size=training.batch_size, augmentation="flip_translate")
        spec = study(args, teacher, training.epochs, one_epoch)
        macs = {
            f"{who}_macs": design_cost(design, data.in_channels, data.n_classes, data.resolution).macs
            for who, design in (("teacher", teacher), ("student", student))
        }
        place = folder / name
        bench = Pair(args, open_setting(spec, data, place, None), spec, data, student, training, place)
        for number, arm in in_turns(bench.arms(), args.repetitions):
            for row in bench.measure(arm, seed=number):
                rows.append({"repetition": number, "pair": name, **macs, **facts(training, data), **row})
                say("throughput", rows[-1])
    return rows


def facts(training: TrainingSpec, data: SearchData) -> Row:
    return {"images": len(data.train), "epochs": training.epochs, "val_images": len(data.val)}


class Pair:
    """The arms of one teacher and one student."""

    def __init__(
        self,
        args: argparse.Namespace,
        setting: Setting,
        spec: StudySpec,
        data: SearchData,
        student: ArchitectureSpec,
        training: TrainingSpec,
        folder: Path,
    ) -> None:
        self.args = args
        self.setting = setting
        self.spec = spec
        self.data = data
        self.student = student
        self.training = training
        self.folder = folder
        self.config = TrialConfig(student, DistillationSpec(terms=LOGITS).canonical(), training)
        # What a process pays once is paid before the clock: the first use of each kernel, of the loaders' modules.
        setting.trial(self.config, seed=99)
        gc.unfreeze()  # of an earlier pair
        gc.collect()
        gc.freeze()  # as executors do, so that a trial's end is no walk over all that was imported

    def arms(self) -> list[str]:
        found = ["ours", "customary", "torchdistill", "ceiling"]
        if self.args.workers < 0:
            found = ["ours", "ceiling"]
        else:
            try:
                importlib.import_module("torchdistill.core.distillation")
            except Exception as error:  # not installed, or not made for this torch
                say(f"torchdistill cannot be imported, its arm is left out: {error!r}")
                found.remove("torchdistill")
        return found

    def measure(self, arm: str, seed: int) -> list[Row]:
        if arm == "ours":
            return self.ours(seed)
        if arm == "ceiling":
            return [self.ceiling()]
        compute, loop = (
            self.setting.compute,
            {"customary": loops.plain, "torchdistill": loops.torchdistill}[arm],
        )
        result: list[float] = []

        def whole() -> None:
            teacher, student = (
                self.as_customary(self.setting.teacher()),
                self.as_customary(self.new_student()),
            )
            sets = (self.data.train, self.data.val)
            result.append(loop(teacher, student, *sets, self.training, compute, self.args.workers))

        seconds = timed(compute, whole)
        return [{"arm": arm, "seconds": seconds, "val_accuracy": result[0]}]

    def ours(self, seed: int) -> list[Row]:
        """A first trial, with an empty bank and from images in the CPU's memory, and the next one."""
        settings: list[Setting] = []

        def first() -> TrialResult:
            settings.append(Setting(self.spec, self.folder, data=self.data))
            return settings[0].trial(self.config, seed)

        rows = []
        for arm, call in (("ours, first", first), ("ours", lambda: settings[0].trial(self.config, seed + 1))):
            results: list[TrialResult] = []
            seconds = timed(self.setting.compute, lambda call=call, to=results: to.append(call()))
            rows.append({"arm": arm, "seconds": seconds, "val_accuracy": results[0].metrics["val_accuracy"]})
        return rows

    def new_student(self) -> nn.Module:
        return self.setting.student(self.student)

    @staticmethod
    def as_customary(network: nn.Module) -> nn.Module:
        return network.to(memory_format=torch.contiguous_format)

    def ceiling(self) -> Row:
        """Only the student's steps, at their best."""
        setting = self.setting
        steps = loops.best_step(
            self.new_student, setting.data.train, self.training, setting.compute, self.args.ceiling_steps
        )
        best = min(steps, key=lambda name: steps[name])
        batch = min(self.training.batch_size, len(self.data.train))
        evaluation = loops.best_evaluation(self.new_student(), setting.data.val, setting.compute)
        return {
            "arm": "ceiling",
            "seconds": steps[best] / batch * len(self.data.train) * self.training.epochs,
            "evaluation_seconds": evaluation * self.training.epochs,
            "best": best,
            "step_seconds": steps,
        }


def table(rows: list[Row]) -> list[str]:
    lines = header(
        "teacher / student MACs",
        "arm",
        "images/s",
        "times the customary loop",
        "times torchdistill",
        "share of the ceiling",
        "the same with evaluation in the ceiling",
    )
    for pair in dict.fromkeys(row["pair"] for row in rows):
        mine = [row for row in rows if row["pair"] == pair]
        seconds = {arm: values(mine, "seconds", arm=arm) for arm in dict.fromkeys(row["arm"] for row in mine)}
        images = mine[0]["images"] * mine[0]["epochs"]
        evaluation = values(mine, "evaluation_seconds", arm="ceiling")
        full = [a + b for a, b in zip(seconds["ceiling"], evaluation, strict=True)]
        size = f"{mine[0]['teacher_macs']:,} / {mine[0]['student_macs']:,} = " + (
            f"{mine[0]['teacher_macs'] / mine[0]['student_macs']:.1f}"
        )
        for arm, taken in sorted(seconds.items()):
            rate = middle([images / s for s in taken], 0)
            folds = [middle(ratios(seconds[to], taken)) if to in seconds else "-" for to in COMPARED]
            share = ratios(seconds["ceiling"], taken)
            goal = f" ({SHARE:g} {verdict(statistics.median(share) >= SHARE)})" if arm == "ours" else ""
            lines.append(
                f"| {size} | {arm} | {rate} | {folds[0]} | {folds[1]} | {middle(share)}{goal} | "
                f"{middle(ratios(full, taken))} |"
            )
    best = {row["best"] for row in rows if row["arm"] == "ceiling"}
    lines += [
        "",
        f"{rows[0]['images']:,} images, {rows[0]['epochs']} epochs, {rows[0]['val_images']:,} validation images judged "
        "after each. `ours, first`: its bank is empty, so that it asks the teacher for every image of every epoch (50 "
        "views), and it loads data and teacher; `ours`: the next trial, as all later ones of a study. The ceiling is "
        f"the student's best step without teacher, data or evaluation ({'; '.join(sorted(best))}). Goal on an H200: 20 "
        "times the customary loop.",
    ]
    return lines
