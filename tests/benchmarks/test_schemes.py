"""The benchmark of schemes: every scheme is a way, costs are compared as they are said to be, and failures are rows."""

import argparse
import sys
from pathlib import Path

import pytest

from naskd.schemes import SCHEMES
from naskd.spec.design import TrainingSpec

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def row(
    way: str, seed: int, accuracy: float, length: str = "equal epochs", macs: float = 100.0
) -> dict[str, object]:
    return {
        "student": "small", "length": length, "way": way, "seed": seed, "epochs": 10, "accuracy": accuracy,
        "own_macs": macs, "macs": 5,
    }  # fmt: skip


@pytest.mark.parametrize("way", ["none", "logits", *SCHEMES.names()])
def test_every_scheme_is_a_way_that_fits_the_students(way: str) -> None:
    import schemes

    taught = schemes.teaching(way).canonical()
    assert taught.scheme == (way if way in SCHEMES else "offline")
    assert bool(taught.terms) == (way == "logits" or (way in SCHEMES and SCHEMES[way].needs_teacher))
    assert SCHEMES[taught.scheme].problems(taught, n_stages=2) == []


def test_epochs_at_equal_cost_follow_from_what_the_longer_training_took() -> None:
    import schemes

    found = [row("none", 0, 0.5), row("mutual", 0, 0.6, macs=250.0), row("okddip", 0, 0.6, macs=9000.0)]
    assert schemes.affordable("small", "none", 0, found, 10) == 10
    assert schemes.affordable("small", "mutual", 0, found, 10) == 4
    assert schemes.affordable("small", "okddip", 0, found, 10) == 2, "never fewer"
    with pytest.raises(LookupError, match="byot"):
        schemes.affordable("small", "byot", 0, found, 10)


def test_the_table_pairs_by_seed_and_names_what_failed() -> None:
    import schemes

    args = argparse.Namespace(students=["small"], lengths=["equal epochs"])
    found = [row("none", 0, 0.5), row("none", 1, 0.7), row("byot", 1, 0.8, macs=130.0), row("byot", 0, 0.55)]
    failed = {"student": "small", "length": "equal epochs", "way": "one", "seed": 0, "error": "too few"}
    text = schemes.table([*found, failed], args)
    (line,) = (line for line in text if line.startswith("| `byot`"))
    assert "+0.0750 [" in line
    assert "| 1.15 |" in line
    assert text[-1] == "- small, equal epochs, one, seed 0: too few"
    (alone,) = (line for line in schemes.table(found[:1], args) if line.startswith("| `none`"))
    assert "nan" not in alone


def test_a_measurement_goes_on_and_counts_what_a_scheme_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from small_studies import study

    import schemes
    from harness.setting import Setting

    class Small(schemes.Place):
        def __init__(self, args: argparse.Namespace) -> None:
            self.setting = Setting(study(), tmp_path)
            self.setting.make()
            self.students = {"small": schemes.two_stages(4)}
            self.training = TrainingSpec(epochs=args.epochs, batch_size=32)

    monkeypatch.setattr(schemes, "Digits", Small)
    out = tmp_path / "table.md"
    command = ["schemes.py", "--students", "small", "--epochs", "4", "--ways", "mutual", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "1"])
    schemes.main()
    text = out.read_text()
    assert "| `mutual` | 1 | 4 | 1.7" in text, "two students, and one of them says anew what it thinks"
    assert "| `mutual` | 1 | 2 | 0." in text, "two epochs of it cost as much as four without"
    trained: list[object] = []
    monkeypatch.setattr(schemes, "measured", lambda *given: trained.append(given))
    monkeypatch.setattr(sys, "argv", [*command, "--seeds", "1", "--resume"])
    schemes.main()
    assert trained == []
