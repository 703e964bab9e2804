"""A study that names a recorded table runs through the front door, without images, devices or waiting."""

from pathlib import Path

import pytest

import naskd
from naskd.runs.opening import check
from naskd.spec.errors import InputError
from naskd.spec.executors import EXECUTORS
from naskd.spec.registry import imported

SPACE = """
from naskd.config import ArchitectureSpec, StageSpec, TrialConfig

def wide(trial):
    width = trial.suggest_int("width", 4, 400)
    return TrialConfig(ArchitectureSpec(stem_width=4, stages=(StageSpec("basic", 1, width),)))
"""
TABLE = """
from naskd.tables import Recorded, RecordedTable
from naskd.spec.design import Cost

def cost(config):
    width = config.architecture.stages[0].width
    return Cost(1000 * width, 10 * width, 40 * width)

def lookup(config):
    width = config.architecture.stages[0].width
    curve = tuple({"val_accuracy": width / 500 * epoch / 5} for epoch in range(1, 6))
    metrics = {"val_accuracy": width / 500, "macs": 1000 * width, "n_params": 10 * width, "size_bytes": 40 * width}
    return Recorded(curve, metrics, train_macs=5000 * width, epoch_seconds=60.0)

def recorded():
    return RecordedTable(lookup, cost, in_channels=1, resolution=8, n_classes=10, n_train=100)

def nothing():
    return {}
"""
STUDY = """
name = "replayed"
space = "space.py:wide"
epochs = 5
[data]
kind = "image_folder"
root = "images"
[budget]
trials = 40
[sampler]
name = "random"
[execution]
executor = "replay"
table = "table.py:recorded"
workers = 4
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "images" / "one").mkdir(parents=True)
    (tmp_path / "images" / "two").mkdir()
    for name, text in {"space.py": SPACE, "table.py": TABLE, "study.toml": STUDY}.items():
        (tmp_path / name).write_text(text)
    return tmp_path / "study.toml"


def test_hours_pass_in_seconds_and_no_image_is_opened(study: Path) -> None:
    """The folders of the images are empty: whoever opened them would say so."""
    snapshots = []
    run = naskd.search(study, out=study.parent / "runs" / "a", observe=snapshots.append)
    trials = run.trials()
    assert {trial["state"] for trial in trials if trial["curve"]} == {"COMPLETE"}
    assert sum(trial["state"] == "COMPLETE" for trial in trials) == 40
    for trial in trials:
        if trial["curve"]:
            width = trial["config"]["architecture"]["stages"][0]["width"]
            assert (trial["macs"], trial["val_accuracy"]) == (1000 * width, width / 500)
    assert snapshots[-1].seconds == pytest.approx(10 * 5 * 60, abs=60), (
        "four workers, ten rounds of five minutes"
    )


def test_the_budget_is_of_the_fake_clock_and_a_resume_goes_on(study: Path) -> None:
    out = study.parent / "runs" / "b"
    first = naskd.search(study, out=out, settings=["budget.seconds=600"])
    done = sum(trial["state"] == "COMPLETE" for trial in first.trials())
    assert 8 <= done <= 12, "two rounds of four, and what was running then"
    both = naskd.search(study, out=out, trials=20)
    assert sum(trial["state"] == "COMPLETE" for trial in both.trials()) == 20


def test_mistakes_name_the_table(study: Path) -> None:
    for setting, message in (
        (
            "execution.table='tabel.py:recorded'",
            r"execution\.table: got \"tabel.py\".*did you mean 'table.py'",
        ),
        ("execution.table='table.py:nothing'", "returns dict; wanted a RecordedTable"),
        ("execution.workers=0", "a whole number at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            check(study, [setting])
    text = study.read_text().replace('table = "table.py:recorded"\n', "")
    study.write_text(text)
    with pytest.raises(InputError, match=r"execution\.table: got nothing"):
        check(study)


def test_another_table_is_another_run(study: Path) -> None:
    out = study.parent / "runs" / "c"
    naskd.search(study, out=out, trials=4)
    table = study.with_name("table.py")
    table.write_text(table.read_text().replace("60.0", "61.0"))
    with pytest.raises(InputError, match="data_hash"):
        naskd.search(study, out=out, trials=6)


def test_a_table_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "tables").mkdir()
    problems = imported(EXECUTORS["replay"].check)
    assert problems({"table": "~/tables"}, tmp_path / "studies") == []
    assert problems({"table": "~/other"}, tmp_path / "studies") != []
