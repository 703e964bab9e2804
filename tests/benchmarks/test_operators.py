"""The script runs, and compares what is equal."""

from pathlib import Path

from forks import Forker

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "operators.py"


def test_every_part_prints_its_lines(forker: Forker, tmp_path: Path) -> None:
    script = [str(SCRIPT), "--calls", "1", "--batch", "4"]
    code = f"""
import runpy, sys
sys.argv, sys.path[:0] = {script}, [{str(SCRIPT.parent)!r}]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    printed = forker.run(code, tmp_path / "printed")
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("|")][2:]
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
