"""The benchmark of exits: what is trained together and alone are the same networks, and its table pairs by seed."""

import argparse
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_both_arms_have_the_same_networks(tmp_path: Path) -> None:
    import exits
    from harness.setting import ROOT, Setting
    from naskd.spec.parse import parse_study

    settings = ["execution.device=cpu", "data.max_train=64"]
    setting = Setting(parse_study(ROOT / "studies/digits.toml", settings), tmp_path)
    config = exits.design(4, 1)
    together = list(exits.together(setting, config, 0))
    alone = [row for name in exits.NETWORKS for row in exits.alone(setting, config, 0, network=name)]
    assert {row["network"]: row["macs"] for row in together} == {row["network"]: row["macs"] for row in alone}
    assert [row["network"] for row in alone] == list(exits.NETWORKS)
    assert sum("spent_macs" in row for row in together) == 1, "it is paid once"
    assert together[0]["spent_macs"] < sum(row["spent_macs"] for row in alone)


def test_the_table_pairs_by_seed() -> None:
    import exits

    rows = [
        {
            "student": "wide",
            "arm": arm,
            "seed": seed,
            "network": name,
            "macs": macs,
            "accuracy": accuracy + seed / 10,
        }
        | ({"spent_macs": 50} if arm != exits.TOGETHER or name == "whole" else {})
        for seed in range(2)
        for name, macs in zip(exits.NETWORKS, (300, 200, 100), strict=True)
        for arm, accuracy in ((exits.TOGETHER, 0.75), (name, 0.5))
    ]
    lines = exits.report(rows, argparse.Namespace(students=["wide"]))
    assert sum("+0.2500 [" in line for line in lines) == 3
    assert lines[-1].endswith("| 0.33 |")
