"""Trials a minute of ``studies/digits.toml`` on 2 cores, of an earlier revision and of this tree."""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness.results import Row, say
from harness.setting import ROOT
from harness.spread import header, middle, ratios, values, verdict
from harness.timing import in_turns

GOAL = 2.0
WORKERS = 2
ONE_SEARCH = Path(__file__).with_name("one_search.py")


@dataclass(frozen=True)
class Arm:
    """A tree and how it runs its trials."""

    tree: Path
    when: str
    executor: str

    @property
    def name(self) -> str:
        return f"{self.when}, {self.executor}"


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    arms = [Arm(ROOT, "after", executor) for executor in args.executor_after]
    if args.before:
        check_out(args.before, folder / "before")
        arms = [*(Arm(folder / "before", "before", executor) for executor in args.executor_before), *arms]
    for arm in arms:
        # Teacher, assistants and what they say are made here, once for each tree, and found by all runs in its folder.
        if not (folder / f"runs-{arm.when}").exists():
            search(args, arm, folder, "first", "serial")
    rows = []
    for number, arm in in_turns(arms, args.repetitions):
        rows.append(
            {"repetition": number, "arm": arm.name, **search(args, arm, folder, f"{arm.executor}-{number}")}
        )
        say("digits", {key: value for key, value in rows[-1].items() if key != "designs"})
    expected = sorted(rows[0]["designs"])
    for row in rows:
        designs = row.pop("designs")
        row["same_designs"] = sum(a == b for a, b in zip(sorted(designs), expected, strict=False))
    return rows


def check_out(revision: str, target: Path) -> None:
    """Lay a revision of this repository into a folder; the repository itself is left alone."""
    done = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise ValueError(f"--before {revision}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="data")


def search(args: argparse.Namespace, arm: Arm, folder: Path, name: str, executor: str | None = None) -> Row:
    """One search of a tree, in a process of its own."""
    executor = executor or arm.executor
    settings = [
        "sampler.name=random",
        "execution.device=cpu",
        "execution.threads=1",
        f"execution.executor={executor}",
    ]
    if executor != "serial":
        settings.append(f"execution.workers={WORKERS}")
    if args.digits_epochs:
        settings.append(f"epochs={args.digits_epochs}")
    if args.quick:
        settings += ["teacher.training.epochs=1", "data.max_train=100"]
    out = folder / f"runs-{arm.when}" / name
    command = [
        sys.executable, "-P", str(ONE_SEARCH), str(arm.tree / "studies/digits.toml"), str(out), str(args.digits_trials),
        *settings,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(arm.tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{arm.name}: {done.stderr[-2000:]}")
    shutil.rmtree(out)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    if Path(found.pop("package")).resolve().parent != arm.tree.resolve() / "naskd":
        raise RuntimeError(f"{arm.name}: another naskd was imported")
    workers = 1 if executor == "serial" else WORKERS
    return {**found, "workers": workers}


def table(rows: list[Row]) -> list[str]:
    names = list(dict.fromkeys(row["arm"] for row in sorted(rows, key=lambda row: row["arm"] >= "before")))
    base = next((name for name in names if name.startswith("before")), names[0])
    lines = header(
        "arm",
        "trials (failed)",
        "trials a minute, whole search",
        "first to last trial",
        f"ratio to {base}",
        "ms a trial outside training",
        "designs in common",
    )
    slow = values(rows, "seconds", arm=base)
    for name in names:
        mine = [row for row in rows if row["arm"] == name]
        seconds = values(mine, "seconds")
        whole = [60 * row["trials"] / row["seconds"] for row in mine]
        steady = [60 * row["trials"] / row["first_to_last"] for row in mine]
        # Of the time of all workers, what no trial can account for.
        rest = [
            1e3 * (row["first_to_last"] * row["workers"] - row["trial_seconds"]) / row["trials"]
            for row in mine
        ]
        fold = ratios(slow, seconds)
        goal = ""
        if name.startswith("after") and base.startswith("before"):
            goal = f" ({GOAL:g} {verdict(statistics.median(fold) >= GOAL)})"
        lines.append(
            f"| {name} | {mine[0]['trials']} ({mine[0]['failed']}) | {middle(whole, 1)} | {middle(steady, 1)} | "
            f"{middle(fold)}{goal} | {middle(rest, 0)} | {min(row['same_designs'] for row in mine)} |"
        )
    lines += [
        "",
        "Teacher, assistants and what they said of the images are there before the clock starts; random sampler. A "
        "whole search begins with reading the study and ends with its report.",
    ]
    return lines
