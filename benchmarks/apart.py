"""Codistillation with all peers in one training, and with each in a training of its own: time, accuracy and memory.

    python benchmarks/apart.py --json apart.json

Digits, and a student of three stages. Peers train together in one worker, or apart in as many as there are peers, with
and without a lag of one exchange. Arms take turns, seed by seed, each with workers that begin anew. Seconds are those
of the clock, from the first job's begin to the last one's end. Beside them stand those of CPU of the worker that had
most, which other work changes less. Memory is what a worker had at most above what it had when it began. A second
student, ``--memory-width`` wide and with more peers, shows it. Prints Markdown tables. With ``--resume`` it goes on.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import machine
from harness.arguments import parser
from harness.results import Results, Row, say
from harness.setting import resnet
from harness.spread import difference, header, sd
from naskd.executors.local.processes import ProcessesExecutor
from naskd.spec.datasets import DataSpec
from naskd.spec.design import ArchitectureSpec, DistillationSpec, TrainingSpec, TrialConfig
from naskd.spec.study import BudgetSpec, ExecutionSpec, StudySpec
from naskd.store.artifacts import ArtifactStore
from naskd.store.checkpoints import CheckpointStore
from naskd.testing.fixed_source import FixedSource
from naskd.trials.context import StudyContext
from naskd.trials.groups import Groups
from naskd.trials.jobs import Job
from naskd.trials.outcome import Steps
from naskd.trials.resources import open_resources
from naskd.trials.steps import job_steps

ARMS = {
    "one training": {"peers_in": "one_training", "lag": 0},
    "apart": {"peers_in": "trials", "lag": 0},
    "apart, lag 1": {"peers_in": "trials", "lag": 1},
}
NOTES = "workers.jsonl"


def main() -> None:
    import apart  # workers import what they do by this name

    args = arguments().parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    results = Results(args.json, args, machine.facts(), resume=args.resume)
    rows: list[Row] = results.found.setdefault("rows", [])
    done = {(row["arm"], row["width"], row["seed"]) for row in rows}
    for arm, width, seed in all_trainings(args):
        if (arm, width, seed) not in done:
            rows.append(apart.train(arm, width, seed, args))
            results.save()
            say(rows[-1])
    print(machine.line(results.found), *report(rows, args), sep="\n")


def arguments() -> argparse.ArgumentParser:
    given = parser(__doc__)
    given.add_argument("--peers", type=int, default=2)
    given.add_argument("--width", type=int, default=16, help="of the first stage")
    given.add_argument("--epochs", type=int, default=20)
    given.add_argument("--seeds", type=int, default=3)
    given.add_argument("--memory-peers", type=int, default=4)
    given.add_argument(
        "--memory-width", type=int, default=192, help="of the student that shows memory; 0: none"
    )
    return given


def all_trainings(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Arm, width and seed."""
    for seed in range(args.seeds):
        yield from ((arm, args.width, seed) for arm in ARMS)
    if args.memory_width:
        yield from ((arm, args.memory_width, 0) for arm in ARMS)


def train(arm: str, width: int, seed: int, args: argparse.Namespace) -> Row:
    """One training of all peers.

    Raises:
        RuntimeError: It has failed.
    """
    shows_memory = width == args.memory_width
    epochs = 2 if shows_memory else args.epochs
    peers = args.memory_peers if shows_memory else args.peers
    options = {"peers": peers, **ARMS[arm], **({"burn_in": 0.0} if shows_memory else {})}
    config = design(resnet(1, width), options, epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context = opened(folder, peers, 128 if shows_memory else None)
        source = FixedSource([Job("0", "trial", config, seed, epochs)])
        ProcessesExecutor(context, folder, noted).run(Groups(source, context))
        result = source.results["0"]
        if result.status != "complete":
            raise RuntimeError(f"{arm}: {result.reason}")
        notes = [json.loads(line) for line in (context.resources.store.root / NOTES).read_text().splitlines()]
    workers = {note["pid"] for note in notes}
    seconds = max(note["ended"] for note in notes) - min(note["began"] for note in notes)
    return {
        "arm": arm, "width": width, "seed": seed, "accuracy": result.metrics["val_accuracy"], "seconds": seconds,
        "train_macs": result.train_macs, "n_params": result.metrics["n_params"], "jobs": len(notes),
        "cpu_seconds": max(sum(note["cpu"] for note in notes if note["pid"] == pid) for pid in workers),
        "megabytes": max(note["peak"] - note["before"] for note in notes) / 2**20,
    }  # fmt: skip


def design(architecture: ArchitectureSpec, options: dict[str, Any], epochs: int) -> TrialConfig:
    """Of one arm."""
    taught = DistillationSpec(scheme="codistillation", scheme_options=tuple(sorted(options.items())))
    return TrialConfig(architecture, taught, TrainingSpec(epochs=epochs, batch_size=64))


def opened(folder: Path, workers: int, max_train: int | None) -> StudyContext:
    """A study of digits with so many workers."""
    (folder / "space.py").write_text("")  # workers are sent it, and nobody asks it
    options = (("trials_per_device", workers), ("workers", workers))
    spec = StudySpec(
        name="apart",
        space="space.py:space",
        data=DataSpec("digits", max_train=max_train),
        budget=BudgetSpec(trials=1),
        execution=ExecutionSpec("processes", device="cpu", threads=1, options=options),
        base=folder,
    )
    store = ArtifactStore(folder / "artifacts")
    store.root.mkdir()
    return StudyContext.of(
        open_resources(spec, store, folder / "cache", checkpoints=CheckpointStore(folder / "checkpoints"))
    )


def noted(job: Job, context: StudyContext) -> Steps:
    """A job, and what its worker had at most of memory and CPU."""
    before, cpu, began = resident("VmRSS:"), time.process_time(), time.time()
    result = yield from job_steps(job, context)
    note = {
        "pid": os.getpid(),
        "before": before,
        "peak": resident("VmHWM:"),
        "cpu": time.process_time() - cpu,
        "began": began,
        "ended": time.time(),
    }
    with open(context.resources.store.root / NOTES, "a") as file:
        file.write(json.dumps(note) + "\n")
    return result


def resident(key: str) -> int:
    """Bytes of memory of this process, now or at most (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def report(rows: list[Row], args: argparse.Namespace) -> list[str]:
    """Two tables."""
    small = [row for row in rows if row["width"] == args.width]
    wide = [row for row in rows if row["width"] != args.width]

    def of(arm: str, key: str, among: list[Row] = small) -> list[float]:
        return [row[key] for row in sorted(among, key=lambda row: row["seed"]) if row["arm"] == arm]

    lines = header(
        "peers", "n", "accuracy", "minus one training", "seconds", "seconds of CPU of a worker", "jobs"
    )
    for arm in ARMS:
        accuracy = of(arm, "accuracy")
        apart = "" if arm == "one training" else difference(accuracy, of("one training", "accuracy"))
        spread = " | ".join(
            f"{statistics.fmean(of(arm, key)):.1f} ± {sd(of(arm, key)):.1f}"
            for key in ("seconds", "cpu_seconds")
        )
        lines.append(
            f"| {arm} | {len(accuracy)} | {statistics.fmean(accuracy):.4f} ± {sd(accuracy):.4f} | {apart} | {spread} | "
            f"{statistics.fmean(of(arm, 'jobs')):.1f} |"
        )
    if wide:
        lines += [
            "",
            *header("peers", "parameters of one network", "MB above the start, of the worker that had most"),
        ]
        lines += [
            f"| {arm} | {int(of(arm, 'n_params', wide)[0]):,} | {of(arm, 'megabytes', wide)[0]:.0f} |"
            for arm in ARMS
        ]
    return lines


if __name__ == "__main__":
    main()
