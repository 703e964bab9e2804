"""The table of the script, from rows as it keeps them; what it trains and exports has tests of its own."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from integer_students import table


def row(bits: int, seed: int, accuracy: float, ms: float) -> dict:
    return {
        "trial": 3,
        "seed": seed,
        "bits": bits,
        "student": "basic 8×2",
        "macs": 1000,
        "bit_ops": 1000 * bits * min(8, bits),
        "file_bytes": 100 * bits,
        "agreement": 1 - seed / 100,
        "test_accuracy": accuracy,
        "ms_1": [ms, ms + 1, ms + 2],
        "ms_64": [10 * ms],
    }


def test_seeds_are_means_and_accuracies_are_compared_in_pairs() -> None:
    rows = [row(32, 0, 0.9, 4.0), row(32, 1, 0.8, 4.0), row(8, 0, 0.91, 1.0), row(8, 1, 0.83, 2.0)]
    *lines, _, compared = table(rows, [32, 8])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [line[1:3] for line in cells] == [["32", "0.8500 ± 0.0707"], ["8", "0.8700 ± 0.0566"]]
    assert cells[1][4:6] == ["800", "0.9950 ± 0.0071"]
    assert cells[1][6] == "2.500 (1.000 to 3.000)"
    assert compared.startswith("Test accuracy, 8 bits less 32: +0.0200 [")
    assert compared.endswith("n = 2.")


def test_rows_without_accuracies_have_none() -> None:
    given = row(8, 0, 0.9, 1.0)
    del given["test_accuracy"], given["agreement"]
    lines = list(table([given], [8]))
    assert "|  |" in lines[2]
    assert not any("less" in line for line in lines)
