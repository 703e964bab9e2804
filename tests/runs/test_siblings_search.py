"""A search whose trainings give several designs, from its study file to its report, its students and a retraining."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import naskd
from naskd.cli import app
from naskd.networks.early_exit import EarlyExit

STUDY = """
name = "exits"
space = "space.py:{space}"
epochs = 2
[data]
kind = "digits"
max_train = 90
[sampler]
name = "random"
[budget]
trials = {trials}
{budget}
[retrain]
seeds = 1
epochs = 1
[execution]
device = "cpu"
executor = "{executor}"
{workers}
"""
SPACE = """
from naskd.config import ArchitectureSpec, DistillationSpec, StageSpec, TrainingSpec, TrialConfig

def design(width, number):
    options = (("exit", number),)
    return TrialConfig(
        ArchitectureSpec((StageSpec("basic", 1, 4), StageSpec("basic", 1, width, stride=2)), stem_width=4),
        DistillationSpec(scheme="byot", scheme_options=options),
        TrainingSpec(batch_size=32, learning_rate=0.01),
    )

def by_exit(trial):
    return design(trial.suggest_categorical("width", (6, 8)), trial.suggest_int("exit", 0, 1))

def whole(trial):
    return design(trial.suggest_categorical("width", (6, 8)), 0)
"""


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="naskd", env={"COLUMNS": "170"})


def search(
    folder: Path, executor: str = "serial", space: str = "by_exit", trials: int = 2, budget: str = ""
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "space.py").write_text(SPACE)
    workers = "workers = 2\nthreads = 1" if executor == "processes" else "threads = 1"
    study = STUDY.format(space=space, executor=executor, workers=workers, trials=trials, budget=budget)
    (folder / "study.toml").write_text(study)
    result = cli("search", folder / "study.toml", "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


def told(run: Path) -> dict[str, dict[str, Any]]:
    """What is known of each design, but for what was spent on it and where it ran."""
    apart = (
        "number",
        "trained_in",
        "siblings",
        "spent_macs",
        "wall_seconds",
        "environment",
        "on_front",
        "reason",
    )
    return {
        trial["config_id"]: {key: value for key, value in trial.items() if key not in apart}
        for trial in naskd.open_run(run).trials()
        if trial["state"] == "COMPLETE"
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("serial"))


def test_two_trainings_give_four_designs(run: Path) -> None:
    record = naskd.open_run(run).to_dict(everything=True)
    complete = [t for t in record["trials"] if t["state"] == "COMPLETE"]
    own = [t for t in complete if t["trained_in"] is None]
    assert len(complete) == 4
    assert len(own) == 2
    assert record["train_macs"] == sum(t["spent_macs"] for t in own)
    for trial in complete:
        options = dict(trial["config"]["distillation"]["scheme_options"])
        assert trial["parameters"]["exit"] == options.get("exit", 0)
        assert trial["parameters"]["width"] == trial["config"]["architecture"]["stages"][1]["width"]


def test_the_command_line_shows_where_they_were_trained(run: Path) -> None:
    (first, *_) = [t for t in naskd.open_run(run).trials() if t["trained_in"] is not None]
    number, parent = first["number"], first["trained_in"]
    everything = cli("front", run, "--all").output
    assert f"(trained in trial {parent})" in everything
    assert "byot, exit 1: labels only" in everything
    shown = cli("show", run, number).output
    assert (
        f"trained in trial {parent}, whose training gives this design, too: nothing was spent on it" in shown
    )
    assert f"its training also gives the design of trial {number}" in cli("show", run, parent).output
    assert "4 trials · 2 of them trained in another" in cli("front", run).output
    assert "2 of 2" in cli("runs", run.parent).output
    rows = {
        row["number"]: row for row in csv.DictReader(io.StringIO(cli("front", run, "--csv", "--all").output))
    }
    assert (rows[str(number)]["trained_in"], rows[str(parent)]["trained_in"]) == (str(parent), "")
    page = (run / "report.html").read_text()
    assert f'"trained_in":{parent}' in page
    assert "whose training gives this design, too" in page


def test_the_student_of_each_is_kept_exported_and_retrained(run: Path) -> None:
    front = naskd.open_run(run).front()
    for trial in front:
        result = cli("export", run, trial["number"])
        assert result.exit_code == 0, result.output
        assert "the student of the search" in result.output
        student = naskd.load(run / "exported" / f"trial{trial['number']}.safetensors")
        assert isinstance(student, EarlyExit) == bool(trial["config"]["distillation"]["scheme_options"])
        assert student(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    shared = next(
        t for t in naskd.open_run(run).trials() if t["trained_in"] is not None and t["state"] == "COMPLETE"
    )
    result = cli("retrain", run, shared["number"], "--seeds", 1)
    assert result.exit_code == 0, result.output
    (row,) = json.loads((run / "retrained.json").read_text())["designs"]
    assert (row["number"], row["macs"]) == (shared["number"], shared["macs"])


def test_processes_and_a_space_without_exits_find_the_same(run: Path, tmp_path: Path) -> None:
    """Whoever was proposed, and whoever trained it: the same designs have the same numbers."""
    serial = told(run)
    others = {
        "processes": told(search(tmp_path / "processes", "processes")),
        "whole": {
            name: {**one, "parameters": serial[name]["parameters"]}
            for name, one in told(search(tmp_path / "whole", space="whole")).items()
        },
    }
    for found in others.values():
        assert found.keys() == serial.keys()
        for name, one in found.items():
            differ = {key for key, value in one.items() if value != serial[name][key]}
            assert differ <= {"parameters", "unused"}


def test_a_search_that_goes_on_tells_nothing_twice(tmp_path: Path) -> None:
    run = search(tmp_path, trials=1)
    assert len(told(run)) == 2
    result = cli("search", tmp_path / "study.toml", "--out", run, "--trials", 2)
    assert result.exit_code == 0, result.output
    complete = [t for t in naskd.open_run(run).trials() if t["state"] == "COMPLETE"]
    assert len(complete) == len(told(run)) == 4
