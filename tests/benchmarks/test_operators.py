"""The script runs, and compares what is equal."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "operators.py"


def test_every_part_prints_its_lines() -> None:
    command = [sys.executable, SCRIPT, "--calls", "1", "--batch", "4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")][2:]
    for what in (
        "1x1 convolution",
        "mean over space",
        "mean square",
        "pooling",
        "step of sgd",
        "weight gradient",
    ):
        assert any(row[0].strip().startswith(what) for row in rows), what
    assert all(float(row[1]) > 0 and float(row[2]) > 0 for row in rows)
