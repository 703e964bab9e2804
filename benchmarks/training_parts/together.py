"""Several students at once on one device: images per second of whole distilled trials, and of bare steps."""

import argparse
import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from harness.images import load_images
from harness.results import Row, say
from harness.setting import LOGITS, Setting, open_setting, resnet, study
from harness.spread import header, middle, ratios, values
from harness.timing import in_turns, timed
from naskd.data.images import SearchData
from naskd.executors.local import mps
from naskd.executors.local.processes import ProcessesExecutor
from naskd.spec.design import ArchitectureSpec, DistillationSpec, TrainingSpec, TrialConfig
from naskd.spec.study import StudySpec
from naskd.trials.jobs import Decision, Job, TrialResult
from training_parts import loops

PATIENCE = 240.0
"""Seconds until a group of trials has ended, workers that begin included."""
GOAL = 20.0
STEPS = 100
MPS = ", MPS"


@dataclasses.dataclass(frozen=True)
class Arm:
    """So many trials at once; on a GPU at the same time, or in turns."""

    count: int
    how: str = ""

    @property
    def name(self) -> str:
        return f"{self.count} at once{self.how}"


def arms_of(args: argparse.Namespace) -> list[Arm]:
    if args.device == "cpu":
        return [Arm(count) for count in args.at_once]
    many = [count for count in args.at_once if count > 1]
    return [
        *(Arm(count, MPS if count > 1 else "") for count in args.at_once),
        *(Arm(count, ", in turns") for count in many[len(many) // 2 :][:1]),
    ]


class Groups:
    """A source that gives groups of jobs when it is told to."""

    def __init__(self, config: TrialConfig, epochs: int) -> None:
        self.config = config
        self.epochs = epochs
        self.finished = False
        self._left = self._out = 0
        self._given = 0
        self._began = self._ended = 0.0
        self._failed: list[str] = []
        self._done = threading.Event()

    def seconds(self, n: int) -> float:
        """Give `n` jobs; how long from the first that is taken to the last that is told."""
        self._began, self._out = 0.0, n
        self._done.clear()
        self._left = n
        if not self._done.wait(PATIENCE) or self._failed:
            raise RuntimeError(f"{self._out} trials did not end: {self._failed[:1]}")
        return self._ended - self._began

    def fail(self, why: str) -> None:
        self._failed.append(why)
        self._done.set()

    def ask(self) -> Job | None:
        if not self._left:
            return None
        self._began = self._began or time.perf_counter()
        self._left -= 1
        self._given += 1
        return Job(str(self._given), "trial", self.config, self._given, self.epochs)

    def report(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> Decision:
        return Decision.CONTINUE

    def tell(self, job: Job, result: TrialResult) -> None:
        if result.status != "complete":
            self._failed.append(result.reason)
        self._out -= 1
        if not self._out:
            self._ended = time.perf_counter()
            self._done.set()


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    data = load_images(args, args.throughput_images, args.throughput_val)
    training = TrainingSpec(
        epochs=args.throughput_epochs, batch_size=args.throughput_batch, augmentation="flip_translate"
    )
    student, teacher = resnet(1, args.width, stem_stride=2), resnet(3, args.width, stem_stride=2)
    (folder / "space.py").write_text("")  # workers are sent it, and nobody asks it
    one_epoch = dataclasses.replace(training, epochs=1)
    spec = study(args, teacher, training.epochs, one_epoch, base=folder)
    setting = open_setting(spec, data, folder, folder / "cache")
    config = TrialConfig(student, DistillationSpec(terms=LOGITS).canonical(), training)

    def customary() -> None:
        networks = (setting.teacher(), setting.student(student))
        plain = (network.to(memory_format=torch.contiguous_format) for network in networks)
        loops.plain(*plain, data.train, data.val, training, setting.compute)

    rows: list[Row] = []
    with running(args, spec, data, config, folder) as sources:
        for number, arm in in_turns((*sources, None), args.repetitions):
            if arm is None:
                found = {"arm": "customary", "trials": 1, "seconds": timed(setting.compute, customary)}
            else:
                n = args.together_trials * arm.count
                found = {"arm": arm.name, "trials": n, "seconds": sources[arm].seconds(n)}
            images = len(data.train) * training.epochs
            rows.append({"repetition": number, **found, "rate": found["trials"] * images / found["seconds"]})
            say("together", rows[-1])
    if args.device == "cuda":
        for number, count in in_turns(args.at_once, args.repetitions):
            rows.append(
                {"repetition": number, "streams": count, "rate": streams(setting, student, training, count)}
            )
    return rows


@contextlib.contextmanager
def running(
    args: argparse.Namespace, spec: StudySpec, data: SearchData, config: TrialConfig, folder: Path
) -> Iterator[dict[Arm, Groups]]:
    """An executor for each arm, its workers warm; they idle when it is another's turn."""
    threads: list[threading.Thread] = []
    sources: dict[Arm, Groups] = {}
    sharing = args.device == "cuda" and max(args.at_once) > 1
    with mps.service(sharing) as variables:
        if sharing and not variables:
            raise RuntimeError("MPS does not serve here, or runs already, so that it cannot be left out")
        try:
            for arm in arms_of(args):
                sources[arm] = source = Groups(config, config.training.epochs)
                execution = dataclasses.replace(
                    spec.execution,
                    executor="processes",
                    options=(("mps", False), ("trials_per_device", arm.count)),  # MPS runs already
                    # on a CPU they share its cores: more threads than those wait for each other
                    threads=max(1, args.threads // (arm.count if args.device == "cpu" else 1)),
                )
                own = Setting(dataclasses.replace(spec, execution=execution), folder, folder / "cache", data)

                def run(own: Setting = own, source: Groups = source) -> None:
                    try:
                        ProcessesExecutor(own.context, folder).run(source)
                    except Exception as error:  # nobody hears what a thread raises
                        source.fail(repr(error))

                with environment(variables if arm.how == MPS else {}):
                    threads.append(threading.Thread(target=run))
                    threads[-1].start()
                    source.seconds(2 * arm.count)
            yield sources
        finally:
            for source in sources.values():
                source.finished = True
            for thread in threads:
                thread.join()


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, workers that begin are given these."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def streams(setting: Setting, student: ArchitectureSpec, training: TrainingSpec, count: int) -> float:
    """Images per second of the student's recorded step, nothing else, in so many streams of this process."""
    data, compute = setting.data.train, setting.compute
    images = loops.as_float(data.images[: training.batch_size].to(compute.device))
    batch = (images.contiguous(memory_format=torch.channels_last), data.labels[: training.batch_size])
    replays = []
    for _ in range(count):
        network = setting.student(student).train()
        replays.append(loops.Step(network, [batch], training, compute, precise=False).recorded())
    lanes = [torch.cuda.Stream() for _ in replays]

    def steps() -> None:
        for _ in range(STEPS):
            for lane, replay in zip(lanes, replays, strict=True):
                with torch.cuda.stream(lane):
                    replay()

    steps()
    return STEPS * count * training.batch_size / timed(compute, steps)


def table(rows: list[Row]) -> list[str]:
    named = [row for row in rows if "arm" in row]
    names = list(dict.fromkeys(row["arm"] for row in sorted(named, key=lambda row: row["arm"])))
    lines = header("trials", "images/s", "times the customary loop", f"times {names[0]}")
    customary, one = (values(named, "rate", arm=arm) for arm in ("customary", names[0]))
    for name in names:
        rate = values(named, "rate", arm=name)
        lines.append(
            f"| {name} | {middle(rate, 0)} | {middle(ratios(rate, customary))} | {middle(ratios(rate, one))} |"
        )
    bare = list(dict.fromkeys(row["streams"] for row in rows if "streams" in row))
    if bare:
        lines += [
            "",
            *header("recorded steps alone, streams of one process", "images/s", "times one stream"),
        ]
        first = values(rows, "rate", streams=bare[0])
        for count in bare:
            rate = values(rows, "rate", streams=count)
            lines.append(f"| {count} | {middle(rate, 0)} | {middle(ratios(rate, first))} |")
    lines += [
        "",
        "Whole distilled trials with a warm bank, in worker processes that are warm. "
        f"Goal on an H200: {GOAL:g} times the customary loop.",
    ]
    return lines
