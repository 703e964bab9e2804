"""The benchmark of tasks: its arms, and tables that pair by seed."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    sys.modules.pop("tasks", None)


def row(arm: str, seed: int, kept: float) -> dict[str, object]:
    return {
        "arm": arm, "heads": "multi", "tasks": 2, "seed": seed, "average_accuracy": kept, "forgetting": 1 - kept,
        "average_accuracy_seen": kept / 2, "forgetting_seen": 0.5, "accuracy_task_1": kept, "accuracy_task_2": 1.0,
    }  # fmt: skip


def test_arms_take_turns_seed_by_seed() -> None:
    import tasks

    args = tasks.arguments().parse_args(["--tasks", "2", "--weights", "0", "4", "--seeds", "2"])
    found = list(tasks.all_trainings(args))
    assert [seed for *_, seed in found] == [0] * 5 + [1] * 5
    assert [task[:3] for task in found[:5]] == [
        ("all at once", "multi", 1),
        ("fine-tuning", "multi", 2),
        ("lwf, weight 4", "multi", 2),
        ("fine-tuning", "single", 2),
        ("lwf, weight 4", "single", 2),
    ]


def test_tables_pair_by_seed() -> None:
    import tasks

    args = tasks.arguments().parse_args(["--tasks", "2", "--weights", "0", "4", "--seeds", "2"])
    rows = [
        row("fine-tuning", 1, 0.5),
        row("lwf, weight 4", 0, 0.9),
        row("lwf, weight 4", 1, 0.8),
        row("fine-tuning", 0, 0.4),
    ]
    text = tasks.report(rows, args)
    assert (
        "| 2 | multi | fine-tuning | 2 | 0.4500 ± 0.0707 | 0.5500 ± 0.0707 | 0.2250 ± 0.0354 | 0.5000 ± 0.0000 |"
        in text
    )
    (line,) = (line for line in text if line.startswith("| 2 | multi | lwf, weight 4 | +"))
    assert "+0.4000 [" in line
    assert "| 2 | multi | lwf, weight 4 | 0.850 | 1.000 |" in text
