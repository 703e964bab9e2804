"""What it takes to look at a run of 300 trials: time and memory of the commands that read.

    python benchmarks/reading.py [--trials 300] [--repetitions 5]

The run is made first, by replaying trainings that a function makes up: its ledger is as large as that of a real search
of as many trials of 20 epochs. Each command is then a process of its own, in turns with the same command where nothing
is kept of the record, and with ``import numpy`` as a yardstick of the machine. Compiled code is kept, as Python does by
default. Wall time, processor time and the largest resident memory are the kernel's.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from naskd.study.kept import KEPT_RECORD

TABLE = """\
import zlib

from naskd.networks.student import design_cost
from naskd.tables import Recorded, RecordedTable


def cost(config):
    return design_cost(config.architecture, 1, 10, 8)


def lookup(config):
    made = cost(config)
    luck = zlib.crc32(config.config_id.encode()) / 2**32
    last = 0.6 + 0.3 * luck * made.macs / (made.macs + 1e5)
    curve = tuple({"val_accuracy": last * epoch / 20, "loss": 2.0 / epoch} for epoch in range(1, 21))
    metrics = {"val_accuracy": last, "macs": made.macs, "n_params": made.n_params, "size_bytes": made.size_bytes}
    return Recorded(curve, metrics, train_macs=60000 * made.macs, epoch_seconds=1.0)


def recorded():
    return RecordedTable(lookup, cost, in_channels=1, resolution=8, n_classes=10, n_train=1149)
"""
SETTINGS = (
    "space=space.py:architecture_only",
    "execution.executor=replay",
    "execution.table=table.py:recorded",
    "sampler.name=random",
)
READING = (
    ("front", "runs/my-study"),
    ("show", "runs/my-study", "0"),
    ("best", "runs/my-study", "--max-macs", "1M"),
    ("runs",),
)


def naskd(folder: Path, *words: str) -> tuple[float, float, float]:
    """Seconds of wall and of processor, and MiB at most, of a command."""
    return python(folder, "-m", "naskd", *words)


def python(folder: Path, *words: str) -> tuple[float, float, float]:
    """The same of Python with these arguments."""
    settings = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"python {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--trials", type=int, default=300)
    given.add_argument("--repetitions", type=int, default=5)
    args = given.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        naskd(folder, "init", "demo")
        (folder / "demo" / "table.py").write_text(TABLE)
        words = [word for setting in SETTINGS for word in ("--set", setting)]
        naskd(folder, "search", "demo/study.toml", "--trials", str(args.trials), *words)
        print("| command | wall, s | processor, s | memory, MiB |\n|---|---|---|---|")
        kept = folder / "runs" / "my-study" / KEPT_RECORD
        measured: dict[str, list[tuple[float, float, float]]] = {}
        for repetition in range(-1, args.repetitions):  # the first compiles
            for command in READING:
                kept.unlink(missing_ok=True)
                found = {f"`{command[0]}`, nothing kept": naskd(folder, *command)}
                found[f"`{command[0]}`"] = naskd(folder, *command)
                found["`import numpy`"] = python(folder, "-c", "import numpy")
                for name, figures in found.items():
                    measured.setdefault(name, []).extend([figures] if repetition >= 0 else [])
        for name, runs in measured.items():
            wall, processor, memory = (
                f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
                for values in zip(*runs, strict=True)
            )
            print(f"| {name} | {wall} | {processor} | {memory} |")


if __name__ == "__main__":
    main()
