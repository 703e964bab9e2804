"""A cold search, its bank empty, against the same designs undistilled."""

import argparse
import dataclasses
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.images import read_images
from harness.results import Row, say
from harness.setting import ROOT, TEACHINGS, Setting, execution, open_setting, open_study, study
from harness.spread import header, middle, ratios, values
from harness.timing import in_turns
from naskd.data.images import SearchData
from naskd.data.load import load_search_data
from naskd.executors.local.serial import SerialExecutor
from naskd.spaces import canonical
from naskd.spec.datasets import DataSpec
from naskd.spec.design import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig
from naskd.spec.parse import parse_study
from naskd.spec.study import BudgetSpec, LimitsSpec, SamplerSpec, StudySpec
from naskd.spec.userfile import import_file
from naskd.study.leases import renewing
from naskd.study.record import load_ledger, run_record
from naskd.study.storage import quiet

ARMS = ("undistilled", "distilled")
IMAGE_TEACHER = ArchitectureSpec(
    stem_width=32,
    stages=(
        StageSpec("basic", 2, 32),
        StageSpec("basic", 2, 64, stride=2),
        StageSpec("basic", 2, 128, stride=2),
    ),
)
"""That of studies/cifar10.toml."""


def space(path: Path, distilled: bool) -> Callable[[Any], TrialConfig]:
    """Random students; how they are taught is drawn in both arms, so that their designs are the same."""
    module = import_file(path)

    def propose(trial: Any) -> TrialConfig:
        architecture, training = module.architecture(trial), module.training(trial)
        taught = trial.suggest_categorical("teaching", list(TEACHINGS))
        terms = TEACHINGS[taught] if distilled else ()
        return canonical(TrialConfig(architecture, DistillationSpec(terms=terms), training))

    return propose


def the_study(args: argparse.Namespace) -> tuple[StudySpec, SearchData, Path]:
    """The study without its storage, its images, and the file of its space."""
    budget, sampler = BudgetSpec(trials=args.search_trials), SamplerSpec(name="random")
    if args.images is None:
        spec = parse_study(ROOT / "studies/digits.toml")
        teacher = spec.teacher
        if args.quick and teacher is not None:
            teacher = dataclasses.replace(teacher, training=TrainingSpec(epochs=1))
        data = DataSpec("digits", max_train=args.search_images if args.quick else None)
        spec = dataclasses.replace(
            spec, name="bench", budget=budget, sampler=sampler, warm_start=(), epochs=args.search_epochs,
            execution=execution(args), teacher=teacher, data=data,
        )  # fmt: skip
        return spec, load_search_data(spec.data, spec.base), ROOT / "search_spaces/digits.py"
    teaching = TrainingSpec(epochs=2, batch_size=128, weight_decay=0.05, augmentation="flip_translate")
    limits = LimitsSpec(max_macs=args.search_max_macs)
    spec = study(
        args, IMAGE_TEACHER, args.search_epochs, teaching, budget=budget, sampler=sampler, limits=limits
    )
    data = read_images(args.images, args.search_images, args.search_images // 4)
    return spec, data, ROOT / "search_spaces/cifar.py"


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    quiet()
    spec, data, path = the_study(args)
    open_setting(spec, data, folder, None)  # trains the teacher, which both arms find in the store
    short = dataclasses.replace(spec, budget=BudgetSpec(trials=1), epochs=2)
    search(short, data, path, folder, folder / "first", distilled=True)
    rows = []
    for number, arm in in_turns(ARMS, args.repetitions):
        home = folder / f"{number}-{arm}"
        found = search(spec, data, path, folder, home, distilled=arm == "distilled")
        rows.append({"repetition": number, "arm": arm, **found})
        say("search", {key: value for key, value in rows[-1].items() if key != "architectures"})
        shutil.rmtree(home)
    if len({str(row["architectures"]) for row in rows}) != 1:
        raise RuntimeError("the arms of the search did not train the same architectures")
    return [{key: value for key, value in row.items() if key != "architectures"} for row in rows]


def search(
    spec: StudySpec, data: SearchData, path: Path, shared: Path, home: Path, *, distilled: bool
) -> Row:
    """One search in a fresh folder with a fresh cache; the teacher is in the shared store."""
    home.mkdir()
    began = time.perf_counter()
    foreseen = ("attention", "hint", "logits") if distilled else ()
    setting = Setting(spec, shared, home / "cache", data, foreseen)
    source = open_study(spec, space(path, distilled), home, setting.context.designs)
    try:
        with renewing(source.renew):
            SerialExecutor(setting.context, home).run(source)
    finally:
        source.release()
    seconds = time.perf_counter() - began
    trials = run_record(load_ledger(spec, home), spec.objectives, everything=True)["trials"]
    trained = [trial for trial in trials if trial["state"] in ("COMPLETE", "FAIL")]
    failed = [trial["reason"] for trial in trained if trial["state"] == "FAIL"]
    return {
        "seconds": seconds,
        "trials": len(trained),
        "failed": failed,
        "trial_seconds": sum(trial["wall_seconds"] for trial in trained),
        "asked": setting.asked_images if distilled else 0,
        "bank_bytes": sum(file.stat().st_size for file in (home / "cache").rglob("*@*.safetensors")),
        "architectures": [trial["config"]["architecture"] for trial in trained],
    }


def table(rows: list[Row]) -> list[str]:
    lines = header(
        "arm",
        "trials (failed)",
        "s",
        "ratio to undistilled",
        "outside training, ms a trial",
        "teacher asked, images",
        "bank MiB",
    )
    plain = values(rows, "seconds", arm="undistilled")
    for arm in ARMS:
        mine = [row for row in rows if row["arm"] == arm]
        seconds = values(mine, "seconds")
        rest = [1e3 * (row["seconds"] - row["trial_seconds"]) / row["trials"] for row in mine]
        ratio = middle(ratios(seconds, plain), 3) if arm == "distilled" else "1"
        lines.append(
            f"| {arm} | {mine[0]['trials']} ({len(mine[0]['failed'])}) | {middle(seconds)} | {ratio} | "
            f"{middle(rest, 1)} | {statistics.median(row['asked'] for row in mine):,.0f} | "
            f"{statistics.median(row['bank_bytes'] for row in mine) / 2**20:.0f} |"
        )
    lines += [
        "",
        "Bank and caches are empty at the start; the teacher is trained already, since both studies of a user share "
        "it. Published for online teachers: 2.6x to 3.2x.",
    ]
    return lines
